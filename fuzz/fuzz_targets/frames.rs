#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| iofog_connector::fuzzing::frames::body(bytes));
