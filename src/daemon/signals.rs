//! The thread that signals come to.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT | ends the daemon; what is in flight is delivered |
//! | SIGHUP | reads settings, certificate, key and token again |
//! | SIGUSR1 | opens the log file anew |

use super::reload::Reloader;
use crate::logging::Logging;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// From now on these signals do nothing until [`spawn`] attends to them.
pub(super) fn catch() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
}

/// Attends to signals until the event loop is gone.
pub(super) fn spawn(mut signals: Signals, reloader: Reloader, logging: Logging) -> io::Result<()> {
    let work = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => reloader.reload(),
                SIGUSR1 => logging.reopen(),
                _ => {
                    if reloader.relay.stop().is_err() {
                        return;
                    }
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(work)?;
    Ok(())
}
