//! What becomes of a panic: it ends the process, with its place in the log. Half a process would be worse: its ports
//! would take connections that nobody serves.
//!
//! The exceptions: [`contain`], for a library whose state belongs to one connection or is given up; and tiny_http's
//! acceptor, which panics for want of a descriptor or a thread, and can be set up again.

use crate::exit;
use crate::throttle::{Throttle, and_more};
use log::{LevelFilter, error};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Contained panics are logged this often: whoever can cause one can cause many.
const REMINDER: Duration = Duration::from_secs(60);

/// What the log has said of contained panics.
static SAID: Mutex<Option<Throttle>> = Mutex::new(None);
/// tiny_http's acceptor has panicked, and who is to be told.
static ACCEPTOR_HAS_ENDED: AtomicBool = AtomicBool::new(false);
static WHEN_ACCEPTOR_ENDS: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

thread_local! {
    /// This thread is inside [`contain`], and for what.
    static CONTAINED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The work that was contained has panicked. What it worked on must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// From now on a panic of any thread is logged and ends the process with status 70 (EX_SOFTWARE).
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let place = describe(panic);
        if let Some(what) = CONTAINED.get() {
            return log_contained(what, &place);
        }
        if is_of_acceptor(panic) {
            log_contained("the API", &place);
            ACCEPTOR_HAS_ENDED.store(true, Ordering::Relaxed);
            return WHEN_ACCEPTOR_ENDS.lock().iter().flat_map(|told| told.as_ref()).for_each(|tell| tell());
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
pub fn contain<T>(what: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CONTAINED.replace(Some(what));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    result.map_err(|_| Panicked)
}

/// Has `tell` called when it panics.
pub fn when_acceptor_ends(tell: impl Fn() + Send + 'static) {
    if let Ok(mut told) = WHEN_ACCEPTOR_ENDS.lock() {
        *told = Some(Box::new(tell));
    }
}

/// Whether tiny_http's acceptor has panicked since this was asked last.
pub fn acceptor_has_ended() -> bool {
    ACCEPTOR_HAS_ENDED.swap(false, Ordering::Relaxed)
}

/// All threads of ours have names. Of tiny_http's it is the acceptor that duplicates descriptors and starts threads.
fn is_of_acceptor(panic: &PanicHookInfo) -> bool {
    let is_place = |file: &str| file.contains("refined_tcp_stream") || file.contains("std/src/thread");
    thread::current().name().is_none() && panic.location().is_some_and(|place| is_place(place.file()))
}

fn log_contained(what: &str, place: &str) {
    let Ok(mut said) = SAID.lock() else { return };
    if let Some(unsaid) = said.get_or_insert_default().may_say_after(REMINDER, Instant::now()) {
        error!("Internal error in {what}, one connection is closed: {place}{}", and_more(unsaid));
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
        assert_eq!(contain("a", || 7), Ok(7));
        assert_eq!(contain("a", || contain("b", || panic!("inner"))), Ok(Err::<(), _>(Panicked)));
        assert!(CONTAINED.get().is_none());
    }
}
