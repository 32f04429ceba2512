//! A panic of any thread ends the whole process, with its place in the log.

use iofog_connector::{crash, exit, logging};
use std::env;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Set in the process that is to crash.
const VICTIM: &str = "IOFOG_CONNECTOR_TEST_VICTIM";

#[test]
fn a_panic_anywhere_is_logged_and_ends_the_process() {
    if env::var_os(VICTIM).is_some() {
        crash_in_a_thread();
    }
    let program = env::current_exe().expect("this test");
    let mut victim = Command::new(program);
    victim.args(["a_panic_anywhere_is_logged_and_ends_the_process", "--exact", "--nocapture"]).env(VICTIM, "1");
    let output = victim.output().expect("this test, once more");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit::SOFTWARE.into()), "{log}");
    assert!(log.contains("[ERROR]") && log.contains("\"worker\"") && log.contains("oh no, 7"), "{log}");
    assert!(log.contains("tests/crash.rs:"), "the place is missing: {log}");
}

#[test]
fn a_contained_panic_is_logged_once_and_ends_nothing() {
    if env::var_os(VICTIM).is_some() {
        let _logging = logging::start(log::LevelFilter::Info, logging::Format::Text, None).expect("a log");
        crash::end_on_panic();
        for number in 0..3 {
            assert!(crash::contain("TLS", || -> () { panic!("oh dear, {number}") }).is_err());
        }
        log::logger().flush();
        println!("still here");
        return;
    }
    let program = env::current_exe().expect("this test");
    let mut victim = Command::new(program);
    victim.args(["a_contained_panic_is_logged_once_and_ends_nothing", "--exact", "--nocapture"]).env(VICTIM, "1");
    let output = victim.output().expect("this test, once more");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("still here"), "{log}");
    assert_eq!(log.matches("Internal error in TLS").count(), 1, "{log}");
    assert!(log.contains("oh dear, 0") && log.contains("tests/crash.rs:"), "the place is missing: {log}");
}

/// As the daemon is set up, with a thread that panics while the main one goes on.
fn crash_in_a_thread() -> ! {
    let _logging = logging::start(log::LevelFilter::Info, logging::Format::Text, None).expect("a log");
    crash::end_on_panic();
    let number = 7;
    let worker = thread::Builder::new().name("worker".to_owned());
    worker.spawn(move || panic!("oh no, {number}")).expect("a thread");
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}
