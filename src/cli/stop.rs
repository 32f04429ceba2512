//! `stop`: ends the daemon and waits until it is gone.
//!
//! A signal does it, since that needs neither token nor certificate nor a free place at the API. Who may not
//! signal the daemon asks it over the API, as any program on this machine may.

use super::client::Client;
use super::output::say;
use super::{Failure, Outcome, default_settings, pid_file};
use crate::config::Config;
use crate::daemon::pidfile::{Holder, Sight};
use crate::exit;
use argh::FromArgs;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether the daemon is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Stop the daemon and wait until it is gone.
#[derive(FromArgs)]
#[argh(subcommand, name = "stop")]
pub(super) struct Stop {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// pid file, if the daemon was started with one of its own
    #[argh(option, arg_name = "file")]
    pid_file: Option<PathBuf>,
    /// how long to wait, in seconds (default: 10)
    #[argh(option, default = "10", arg_name = "seconds")]
    timeout: u64,
}

impl Stop {
    pub fn run(self) -> Outcome {
        let path = pid_file(self.pid_file, &self.config);
        let unreadable = |e: io::Error| Failure::new(exit::UNKNOWN, format!("{}: {e}", path.display()));
        // Kept open: the lock can be seen through it even when the daemon has removed the file.
        let sight = Sight::of(&path).map_err(unreadable)?;
        let running = match &sight {
            None => None,
            Some(sight) => match sight.holder().map_err(unreadable)? {
                Holder::Nobody => None,
                holder => Some((sight, holder)),
            },
        };
        let Some((sight, holder)) = running else {
            say("iofog-connector is already stopped.");
            return Ok(exit::OK);
        };
        say("Stopping connector...");
        ask(holder, &self.config)?;
        let deadline = Instant::now().checked_add(Duration::from_secs(self.timeout));
        while sight.holder().map_err(unreadable)? != Holder::Nobody {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let message = format!("{} still runs after {} s", who(holder), self.timeout);
                return Err(Failure::new(exit::STILL_THERE, message));
            }
            thread::sleep(LOOK);
        }
        Ok(exit::OK)
    }
}

/// Tells the daemon to end.
fn ask(holder: Holder, settings: &Path) -> Result<(), Failure> {
    if let Holder::Process(pid) = holder {
        match kill(pid, Signal::SIGTERM) {
            // It has ended by itself meanwhile.
            Ok(()) | Err(Errno::ESRCH) => return Ok(()),
            Err(_) => {}
        }
    }
    let config = Config::load(settings).map_err(|e| not_permitted(holder, &e.to_string()))?;
    let client = Client::of(&config).map_err(|e| not_permitted(holder, &e.to_string()))?;
    let answer = client.post("/api/v2/commandline", &[("command", "stop")]);
    answer.map(|_| ()).map_err(|e| not_permitted(holder, &e.to_string()))
}

fn not_permitted(holder: Holder, reason: &str) -> Failure {
    let who = who(holder);
    Failure::new(exit::NOT_PERMITTED, format!("{who} is not ours to signal, and could not be asked either: {reason}"))
}

fn who(holder: Holder) -> String {
    match holder {
        Holder::Process(pid) => format!("process {pid}"),
        _ => "the daemon, in another container,".to_owned(),
    }
}
