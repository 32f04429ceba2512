//! `start`: runs the daemon in the foreground.

use super::options::default_settings;
use super::output::say;
use super::status::is_stopping;
use super::{Outcome, identity};
use crate::daemon::pidfile::LockError;
use crate::daemon::{Daemon, Options, StartError};
use crate::exit;
use crate::layout::Layout;
use crate::limits::DRAIN_TIMEOUT;
use crate::logging::Format;
use argh::FromArgs;
use log::{LevelFilter, error};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether a daemon that is stopping is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Run the daemon in the foreground.
#[derive(FromArgs)]
#[argh(subcommand, name = "start")]
pub(super) struct Start {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// folder of what the daemon writes (default: /var/lib/iofog-connector for the default settings file, if there is
    /// such a folder, else that of the settings file)
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// pid file (default: /run/iofog-connector.pid for the default settings file, beside any other)
    #[argh(option, arg_name = "file")]
    pid_file: Option<PathBuf>,
    /// started as root: change to this user
    #[argh(option, arg_name = "name")]
    user: Option<String>,
    /// append the log to this file instead of standard error
    #[argh(option, arg_name = "file")]
    log_file: Option<PathBuf>,
    /// least severity to log: error, warn, info (default), debug or trace
    #[argh(option, default = "LevelFilter::Info", arg_name = "level", from_str_fn(level))]
    log_level: LevelFilter,
    /// what lines of the log look like: text (default; under systemd as its journal expects it) or json
    #[argh(option, default = "Format::Text", arg_name = "format")]
    log_format: Format,
}

impl Start {
    pub fn run(self) -> Outcome {
        let Self { config, state, pid_file, user, log_file, log_level, log_format } = self;
        let layout = Layout::new(config, state, pid_file);
        let daemon = match enter(&Options { layout, user, log_file, log_level, log_format }) {
            Err(e @ StartError::PidFile(LockError::Held)) => {
                say(e);
                return Ok(exit::OK);
            }
            entered => entered?,
        };
        let logs_to_file = daemon.logs_to_file();
        let ended = daemon.run();
        if let Err(e) = &ended {
            error!("{e}");
        }
        log::logger().flush();
        match ended {
            Ok(()) => Ok(exit::OK),
            // Whoever sits at the terminal has not seen the log.
            Err(e) if logs_to_file => Err(e.into()),
            Err(e) => Ok(e.status()),
        }
    }
}

/// Becomes the daemon. One that is about to end is waited for: it is running no longer.
fn enter(options: &Options) -> Result<Daemon, StartError> {
    let mut deadline = None;
    loop {
        match Daemon::enter(options.clone()) {
            Err(StartError::PidFile(LockError::Held)) => {}
            other => return other,
        }
        // Root asks only where what it would read for that is its own.
        if deadline.is_none() && identity::may_stay(&options.layout) && is_stopping(&options.layout) {
            deadline = Some(Instant::now() + DRAIN_TIMEOUT * 2);
        }
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return Err(StartError::PidFile(LockError::Held));
        }
        thread::sleep(LOOK);
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "expected error, warn, info, debug or trace".to_owned())
}
