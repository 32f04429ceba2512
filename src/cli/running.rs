//! The daemon as others see it: the process that holds the lock on its pid file, whatever number stands in it.

use crate::daemon::pidfile::{Holder, Sight};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use std::fmt;
use std::io;
use std::path::Path;

/// A process that held the lock when it was looked for.
pub(super) struct Running {
    /// Kept open: the lock can be seen through it even when the daemon has removed the file.
    sight: Sight,
    holder: Holder,
}

impl Running {
    /// `None`: no daemon has this pid file.
    ///
    /// # Errors
    /// Why nobody can tell, with the file's name.
    pub fn find(pid_file: &Path) -> Result<Option<Self>, String> {
        let unreadable = |e: io::Error| format!("{}: {e}", pid_file.display());
        let Some(sight) = Sight::of(pid_file).map_err(unreadable)? else { return Ok(None) };
        Ok(match sight.holder().map_err(unreadable)? {
            Holder::Nobody => None,
            holder => Some(Self { sight, holder }),
        })
    }

    /// Its number, unless it is in a container where numbers mean something else.
    pub fn pid(&self) -> Option<i32> {
        match self.holder {
            Holder::Process(pid) => Some(pid.as_raw()),
            Holder::Nobody | Holder::Elsewhere => None,
        }
    }

    /// Whether anybody holds the lock by now; a successor is signalled next time.
    pub fn is_gone(&mut self) -> io::Result<bool> {
        self.holder = match self.sight.holder()? {
            Holder::Nobody => return Ok(true),
            holder => holder,
        };
        Ok(false)
    }

    /// `false`: not permitted, or it has no number here. One that has ended meanwhile needs no signal.
    pub fn signal(&self, signal: Signal) -> bool {
        match self.holder {
            Holder::Process(pid) => matches!(kill(pid, signal), Ok(()) | Err(Errno::ESRCH)),
            Holder::Nobody | Holder::Elsewhere => false,
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid() {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process in another container"),
        }
    }
}
