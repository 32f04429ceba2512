//! `reload`: has the daemon read its files again, as SIGHUP does.

use super::{Failure, Outcome, identity};
use crate::daemon::running::Running;
use crate::exit;
use crate::layout::Layout;
use nix::sys::signal::Signal;
use std::path::PathBuf;

daemon_command! {
    /// Have the daemon read settings, certificate, key and token again.
    "reload" Reload {
        /// pid file, if the daemon was started with one of its own
        #[argh(option, arg_name = "file")]
        pid_file: Option<PathBuf>,
    }
}

impl Reload {
    pub fn run(self) -> Outcome {
        let layout = Layout::new(self.config, self.state, self.pid_file);
        identity::take_on(&layout, identity::PATIENCE)?;
        let running = Running::find(&layout.pid_file).map_err(|e| Failure::new(exit::UNKNOWN, e))?;
        let running = running.ok_or_else(|| Failure::new(exit::STOPPED, "iofog-connector is stopped."))?;
        running.signal(Signal::SIGHUP).map_err(|e| Failure::new(exit::NOT_PERMITTED, e))?;
        Ok(exit::OK)
    }
}
