//! `reload`: has the daemon read its files again, as SIGHUP does.

use super::running::Running;
use super::{Failure, Outcome, default_settings, identity};
use crate::exit;
use crate::layout::Layout;
use argh::FromArgs;
use nix::sys::signal::Signal;
use std::path::PathBuf;

/// Have the daemon read settings, certificate, key and token again.
#[derive(FromArgs)]
#[argh(subcommand, name = "reload")]
pub(super) struct Reload {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// pid file, if the daemon was started with one of its own
    #[argh(option, arg_name = "file")]
    pid_file: Option<PathBuf>,
}

impl Reload {
    pub fn run(self) -> Outcome {
        let layout = Layout::new(self.config, self.state, self.pid_file);
        identity::take_on(&layout, identity::PATIENCE)?;
        let running = Running::find(&layout.pid_file).map_err(|e| Failure::new(exit::UNKNOWN, e))?;
        let running = running.ok_or_else(|| Failure::new(exit::STOPPED, "iofog-connector is stopped."))?;
        if running.signal(Signal::SIGHUP) {
            return Ok(exit::OK);
        }
        Err(Failure::new(exit::NOT_PERMITTED, format!("{running} is not ours to signal")))
    }
}
