//! The threads that signals come to.
//!
//! | signal | what it does | thread |
//! |---|---|---|
//! | SIGTERM, SIGINT | ends the daemon; what is in flight is delivered | signals |
//! | SIGUSR1 | reopens the log files | signals |
//! | SIGHUP | reads settings, certificate, key and token again | reload |
//!
//! The first of the two never waits for anything, so that the daemon can be ended whatever else hangs: a reload may,
//! on a file system that is gone, or on a named pipe in a file's place.

use super::reload::Reloader;
use crate::logging::Logging;
use crate::relay::command::{EventLoop, Handle};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// Signals that have been caught and are not attended to yet.
pub(super) struct Caught {
    signals: Signals,
    reload: Signals,
}

/// While this is there, the signals wait. Whoever finds the lock taken may send one: it must not meet a process that
/// has the lock and is not prepared.
pub(super) struct Held(SigSet);

/// Has the signals wait.
pub(super) fn hold() -> io::Result<Held> {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGHUP].into_iter().collect::<SigSet>();
    Ok(Held(signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
}

impl Drop for Held {
    fn drop(&mut self) {
        // This only fails for arguments that make no sense.
        let _ = self.0.thread_set_mask();
    }
}

/// From now on these signals do nothing until [`spawn`] attends to them.
pub(super) fn catch() -> io::Result<Caught> {
    Ok(Caught { signals: Signals::new([SIGTERM, SIGINT, SIGUSR1])?, reload: Signals::new([SIGHUP])? })
}

/// Attends to signals until the event loop is gone.
pub(super) fn spawn(caught: Caught, reloader: Reloader, logs: Vec<Logging>) -> io::Result<()> {
    let Caught { signals, mut reload } = caught;
    let relay = reloader.relay.clone();
    thread::Builder::new().name("signals".into()).spawn(move || read_free(signals, &relay, &logs))?;
    thread::Builder::new().name("reload".into()).spawn(move || reload.forever().for_each(|_| reloader.reload()))?;
    Ok(())
}

fn read_free(mut signals: Signals, relay: &Handle, logs: &[Logging]) {
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => logs.iter().for_each(Logging::reopen),
            _ => {
                if relay.stop(name(signal)).is_err() {
                    return;
                }
            }
        }
    }
}

fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}
