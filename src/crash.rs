//! What becomes of a panic: it ends the process, with its place in the log. Half a process would be worse: its ports
//! would take connections that nobody serves.
//!
//! The one exception is [`contain`], for a library whose input comes from anybody and whose state belongs to one connection.

use crate::exit;
use crate::throttle::{Throttle, and_more};
use log::{LevelFilter, error};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Contained panics are logged this often: whoever can cause one can cause many.
const REMINDER: Duration = Duration::from_secs(60);

/// What the log has said of contained panics.
static SAID: Mutex<Option<Throttle>> = Mutex::new(None);

thread_local! {
    /// This thread is inside [`contain`].
    static IN_CONTAINMENT: Cell<bool> = const { Cell::new(false) };
}

/// The work that was contained has panicked. What it worked on must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// From now on a panic of any thread is logged and ends the process with status 70 (EX_SOFTWARE).
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let place = describe(panic);
        if IN_CONTAINMENT.get() {
            return log_contained(&place);
        }
        let message = format!("Internal error, the process ends: {place}");
        if log::max_level() == LevelFilter::Off {
            eprintln!("{message}");
        }
        error!("{message}");
        log::logger().flush();
        process::exit(exit::SOFTWARE.into());
    }));
}

/// Does `work`, and survives its panic. Costs nothing worth measuring while there is none.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = IN_CONTAINMENT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IN_CONTAINMENT.set(outer);
    result.map_err(|_| Panicked)
}

fn log_contained(place: &str) {
    let Ok(mut said) = SAID.lock() else { return };
    if let Some(unsaid) = said.get_or_insert_default().may_say_after(REMINDER, Instant::now()) {
        error!("Internal error in TLS, one connection is closed: {place}{}", and_more(unsaid));
    }
}

fn describe(panic: &PanicHookInfo) -> String {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let place = panic.location().map_or("an unknown place".to_owned(), ToString::to_string);
    let current = thread::current();
    let thread = current.name().unwrap_or("without a name");
    format!("the thread {thread:?} panicked at {place}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_ends_nothing() {
        assert_eq!(contain(|| 7), Ok(7));
        assert_eq!(contain(|| contain(|| panic!("inner"))), Ok(Err::<(), _>(Panicked)));
        assert!(!IN_CONTAINMENT.get());
    }
}
