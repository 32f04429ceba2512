//! What reads bytes from outside, driven by any bytes at all.
//!
//! A target is a function that takes bytes and panics when something is wrong. Each is called in two ways: by
//! libFuzzer (`fuzz/`, see CONTRIBUTING.md), which looks for inputs that reach new code, and by `cargo test`, over
//! the inputs that were kept (`fuzz/corpus/`) and mutations of them. No part of this is in the program.

pub mod config;
mod tls;
pub mod tls_handshake;
pub mod tls_records;

/// Does something with the bytes, and panics if that goes wrong.
pub type Body = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Body)] =
    &[("config", config::body), ("tls_handshake", tls_handshake::body), ("tls_records", tls_records::body)];

/// An error's text is for people who read logs: one line, and not endless.
fn assert_is_readable(message: &str) {
    assert!(!message.is_empty() && message.len() < 64 * 1024, "{} bytes: {message:?}", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}

#[cfg(test)]
mod tests;
