//! A panic anywhere ends the whole daemon, with its place in the log. Half a daemon would be worse: its ports
//! would take connections that nobody serves.

use crate::exit;
use log::error;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

/// From now on a panic of any thread is logged and ends the process with status 70 (EX_SOFTWARE).
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        error!("{}", describe(panic));
        log::logger().flush();
        process::exit(exit::SOFTWARE.into());
    }));
}

fn describe(panic: &PanicHookInfo) -> String {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let place = panic.location().map_or("an unknown place".to_owned(), ToString::to_string);
    let current = thread::current();
    let thread = current.name().unwrap_or("without a name");
    format!("Internal error, the daemon ends: the thread {thread:?} panicked at {place}: {message}")
}
