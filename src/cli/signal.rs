//! `stop` and `reload`: signals to the daemon, which need neither token nor certificate nor a free place at the API.
//!
//! `stop` waits until the daemon is gone. Who may not signal it asks it over the API, as any program on this machine may.

use super::client::{Client, RESPONSE};
use super::output::{complain, say};
use super::{Failure, Outcome, identity};
use crate::config::Config;
use crate::daemon::pidfile::Running;
use crate::exit;
use crate::layout::Layout;
use nix::sys::signal::Signal;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether the daemon is gone.
const LOOK: Duration = Duration::from_millis(20);

daemon_command! {
    /// Stop the daemon and wait until it is gone.
    "stop" Stop with pid_file {
        /// how long to wait, in seconds (default: 10)
        #[argh(option, default = "10", arg_name = "seconds")]
        timeout: u64,
        /// kill the daemon if it has not ended by then
        #[argh(switch)]
        kill: bool,
    }
}

daemon_command! {
    /// Have the daemon read settings, certificate, key and token again.
    "reload" Reload with pid_file {}
}

impl Stop {
    pub fn run(self) -> Outcome {
        let layout = self.layout();
        let timeout = Duration::from_secs(self.timeout);
        // It may have to wait twice.
        identity::take_on(&layout, timeout.saturating_mul(2).saturating_add(identity::TIMEOUT))?;
        let unreadable = |e| Failure::new(exit::UNKNOWN, e);
        let Some(mut running) = Running::find(&layout.pid_file).map_err(unreadable)? else {
            say("iofog-connector is already stopped.");
            return Ok(exit::OK);
        };
        say("Stopping connector...");
        if let Err(problem) = running.signal(Signal::SIGTERM) {
            ask(&layout).map_err(|e| {
                Failure::new(
                    exit::NOT_PERMITTED,
                    format!("{problem}; the request to its API failed, too: {}", e.message),
                )
            })?;
        }
        let is_gone = await_end(&mut running, timeout, |_| {})
            .and_then(|gone| Ok(gone || self.kill && end_by_force(&mut running, timeout)?));
        match is_gone.map_err(|e| unreadable(format!("{}: {e}", layout.pid_file.display())))? {
            true => Ok(exit::OK),
            false => Err(Failure::new(exit::STILL_THERE, format!("{running} still runs after {} s", self.timeout))),
        }
    }
}

/// Waits until nobody holds the lock any more, and calls `meanwhile` again and again; whether that took less than
/// `timeout`.
fn await_end(running: &mut Running, timeout: Duration, meanwhile: impl Fn(&Running)) -> io::Result<bool> {
    let deadline = Instant::now().checked_add(timeout);
    while !running.is_gone()? {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        meanwhile(running);
        thread::sleep(LOOK);
    }
    Ok(true)
}

/// Kills the process that holds the lock, and any that takes it over meanwhile.
fn end_by_force(running: &mut Running, timeout: Duration) -> io::Result<bool> {
    complain(format!("{running} did not stop in time and is killed"));
    await_end(running, timeout, |running| {
        // Whether it was of use shows by the lock.
        let _ = running.signal(Signal::SIGKILL);
    })
}

/// Asks the daemon to end, as any program on this machine may.
fn ask(layout: &Layout) -> Result<(), Failure> {
    Client::of(&Config::load(layout)?)?.post("/api/v2/commandline", &[("command", "stop")], RESPONSE)?;
    Ok(())
}

impl Reload {
    pub fn run(self) -> Outcome {
        let layout = self.layout();
        identity::take_on(&layout, identity::TIMEOUT)?;
        let running = Running::find(&layout.pid_file).map_err(|e| Failure::new(exit::UNKNOWN, e))?;
        let running =
            running.ok_or_else(|| Failure::new(exit::STOPPED, "the daemon is stopped, there is nothing to reload"))?;
        running.signal(Signal::SIGHUP).map_err(|e| Failure::new(exit::NOT_PERMITTED, e))?;
        Ok(exit::OK)
    }
}
