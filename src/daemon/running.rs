//! The daemon as other processes see it: whoever holds the lock on its pid file, whatever number stands in that.

use super::pidfile;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// A daemon that held the lock when it was looked for.
#[derive(Debug)]
pub struct Running {
    /// Kept open: the lock can be seen through it even when the daemon has removed the file.
    file: File,
    /// `None`: it is in a container whose process numbers mean nothing here.
    pid: Option<Pid>,
}

impl Running {
    /// `None`: no daemon has this pid file.
    ///
    /// # Errors
    /// Why that is unknown, with the file's name.
    pub fn find(pid_file: &Path) -> Result<Option<Self>, String> {
        let found = match pidfile::open_for_reading(pid_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(file) => {
                let mut running = Self { file, pid: None };
                running.is_gone().map(|is_gone| (!is_gone).then_some(running))
            }
        };
        found.map_err(|e| format!("{}: {e}", pid_file.display()))
    }

    /// Its number, if it has one here.
    pub fn pid(&self) -> Option<i32> {
        self.pid.map(Pid::as_raw)
    }

    /// Whether nobody holds the lock by now; a successor is signalled next time.
    pub fn is_gone(&mut self) -> io::Result<bool> {
        let mut lock = pidfile::whole_file(libc::F_WRLCK);
        fcntl(&self.file, FcntlArg::F_GETLK(&mut lock))?;
        self.pid = (lock.l_pid > 0).then(|| Pid::from_raw(lock.l_pid));
        Ok(libc::c_int::from(lock.l_type) == libc::F_UNLCK)
    }

    /// One that has ended meanwhile needs no signal.
    ///
    /// # Errors
    /// Why it cannot be signalled.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        match self.pid.map(|pid| kill(pid, signal)) {
            Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
            Some(Err(_)) => Err(format!("{self} belongs to another user: no permission to signal it")),
            None => Err(format!("{self} cannot be signalled from here")),
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process in another container"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::fs;

    #[test]
    fn without_a_lock_nobody_holds_it() {
        let folder = Folder::new();
        let path = folder.0.join("pid");
        assert!(Running::find(&path).unwrap().is_none());
        fs::write(&path, "1\n").unwrap();
        assert!(Running::find(&path).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_a_pid_file_of_the_daemon_is_an_error() {
        let folder = Folder::new();
        let (path, target) = (folder.0.join("pid"), folder.0.join("precious"));
        fs::write(&target, "precious").unwrap();
        fs::hard_link(&target, &path).unwrap();
        assert!(Running::find(&path).unwrap_err().contains("hard links"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Running::find(&path).unwrap_err().contains("regular file"));
    }
}
