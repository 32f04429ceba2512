//! The pid file: at most one daemon for each settings file.
//!
//! The lock on the file decides, not the number in it. The kernel holds the lock exactly as long as the daemon
//! lives and says who holds it: a file that a crash left behind is harmless, and nobody can turn `stop` against another
//! process by writing a number. The number is there for other programs: init scripts, logrotate.
//!
//! It is a lock of fcntl(2), which belongs to the process and is lost as soon as that closes *any* descriptor of
//! the file. So the daemon opens it once and never closes it.

use super::writer;
use crate::files::expect_regular;
use crate::layout::folder_of;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, Uid, access, fchown, geteuid};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Everybody may read the file.
const MODE: u32 = 0o644;
/// Neither through a link, nor waiting for the other end of a FIFO.
const OPEN_FLAGS: libc::c_int = libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// How often a file that another daemon just removed is opened again.
const TRIES: usize = 100;

/// The lock of a running daemon. It lasts until the process ends; dropping this takes the file away.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: ManuallyDrop<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("iofog-connector is already running.")]
    Held,
    #[error(
        "{path}: the pid file cannot be written: {cause}. --pid-file names another place; `status` and `stop` need it too"
    )]
    System { path: PathBuf, cause: io::Error },
}

impl PidFile {
    /// Locks the file and writes this process's number into it.
    pub fn lock(path: &Path) -> Result<Self, LockError> {
        let system = |cause| LockError::System { path: path.to_owned(), cause };
        for _ in 0..TRIES {
            let file = open(path, OpenOptions::new().write(true).create(true).truncate(false)).map_err(system)?;
            match fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
                Ok(_) => {}
                Err(Errno::EACCES | Errno::EAGAIN) => return Err(LockError::Held),
                Err(errno) => return Err(system(errno.into())),
            }
            match names_of(&file, path).map_err(system)? {
                // A daemon that has just ended has removed the file between our opening and locking it.
                Names::Others => {}
                // The lock is ours, no daemon lives in it. Whoever is not root can free no name there, and has no file
                // but its own to write to.
                Names::ThisAndOthers if geteuid().is_root() => fs::remove_file(path).map_err(system)?,
                Names::This | Names::ThisAndOthers => {
                    let mut pid_file = Self { path: path.to_owned(), file: ManuallyDrop::new(file) };
                    pid_file.write().map_err(system)?;
                    return Ok(pid_file);
                }
            }
        }
        Err(system(io::Error::other("the file is removed again and again")))
    }

    /// Whether [`Self::lock`] could have the file, if nobody holds it. Makes none, and touches no lock.
    ///
    /// # Errors
    /// What it would fail with.
    pub fn can_be_made(path: &Path) -> Result<(), LockError> {
        let opened = match open(path, OpenOptions::new().write(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                access(folder_of(path), AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
            }
            opened => opened.map(|_| ()),
        };
        opened.map_err(|cause| LockError::System { path: path.to_owned(), cause })
    }

    /// Lets `user` remove or empty the file when the daemon, which runs as that user, ends.
    pub fn give_to(&self, user: Uid) -> io::Result<()> {
        Ok(fchown(self.file.as_fd(), Some(user), None)?)
    }

    fn write(&mut self) -> io::Result<()> {
        // Whatever the umask says: any user may ask whether the daemon runs.
        if self.file.metadata()?.uid() == geteuid().as_raw() {
            self.file.set_permissions(Permissions::from_mode(MODE))?;
        }
        self.file.set_len(0)?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // In a folder of root's the file stays, empty. Nothing depends on it.
        if fs::remove_file(&self.path).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

/// Not through a link: the folder may belong to another user than the one who starts the daemon.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.read(true).mode(MODE).custom_flags(OPEN_FLAGS).open(path)?;
    expect_regular(&file)?;
    expect_own(&file.metadata()?, path)?;
    Ok(file)
}

/// A file with a second name is somebody's who made that a pid file to have it emptied, or given away. Not in a folder
/// where nobody but root makes names: there the second one is elsewhere, and the daemon's user can make as many of those
/// as it likes.
fn expect_own(metadata: &Metadata, path: &Path) -> io::Result<()> {
    match metadata.nlink() {
        0 | 1 => Ok(()),
        _ if writer::is_only_root([folder_of(path)])? => Ok(()),
        links => Err(io::Error::other(format!("the file has {links} names (hard links), expected one"))),
    }
}

/// The names of an open file.
enum Names {
    /// Not the one that was asked for, by now.
    Others,
    This,
    ThisAndOthers,
}

/// Whether `file` is what stands at `path` now, and nowhere else: one look shows both, or a name could come and go
/// between two.
fn names_of(file: &File, path: &Path) -> io::Result<Names> {
    let opened = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) if (opened.dev(), opened.ino()) != (there.dev(), there.ino()) => Ok(Names::Others),
        Ok(there) if there.nlink() <= 1 => Ok(Names::This),
        Ok(there) => expect_own(&there, path).map(|()| Names::ThisAndOthers),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Names::Others),
        Err(error) => Err(error),
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A daemon as other processes see it: whoever held the lock when it was looked for.
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
        let found = match open(pid_file, &mut OpenOptions::new()) {
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
        let mut lock = whole_file(libc::F_WRLCK);
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
            None => f.write_str("a process whose number the lock does not tell, in another container perhaps,"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    /// A folder where others than root make names, too.
    fn shared_folder() -> Folder {
        let folder = Folder::new();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
        folder
    }

    #[test]
    fn a_file_that_a_crash_left_behind_is_taken_over_and_removed_in_the_end() {
        let folder = Folder::new();
        let path = folder.0.join("pid");
        fs::write(&path, "1\nof an old daemon\n").unwrap();
        let pid_file = PidFile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(pid_file);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = Folder::new();
        let (path, target) = (folder.0.join("pid"), folder.0.join("precious"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(PidFile::lock(&path), Err(LockError::System { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn a_file_with_a_second_name_or_of_another_kind_is_left_alone() {
        let folder = shared_folder();
        let (path, target) = (folder.0.join("pid"), folder.0.join("precious"));
        fs::write(&target, "precious").unwrap();
        fs::hard_link(&target, &path).unwrap();
        assert!(PidFile::lock(&path).unwrap_err().to_string().contains("hard links"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(PidFile::lock(&path).unwrap_err().to_string().contains("regular file"));
    }

    /// The daemon's user can give its own file a second name elsewhere.
    #[test]
    fn in_a_folder_of_roots_a_second_name_keeps_nobody_from_starting() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root has a folder of root's");
            return;
        }
        let folder = Folder::new();
        let (path, other) = (folder.0.join("pid"), folder.0.join("other"));
        fs::write(&path, "1\n").unwrap();
        fs::hard_link(&path, &other).unwrap();
        assert!(Running::find(&path).unwrap().is_none());
        PidFile::can_be_made(&path).unwrap();
        let pid_file = PidFile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::read_to_string(&other).unwrap(), "1\n", "what has the other name is left alone");
        drop(pid_file);
        assert!(!path.exists());
    }

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
        let folder = shared_folder();
        let (path, target) = (folder.0.join("pid"), folder.0.join("precious"));
        fs::write(&target, "precious").unwrap();
        fs::hard_link(&target, &path).unwrap();
        assert!(Running::find(&path).unwrap_err().contains("hard links"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Running::find(&path).unwrap_err().contains("regular file"));
    }
}
