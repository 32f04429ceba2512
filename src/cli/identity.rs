//! Whom a command of root's acts as.
//!
//! Whoever can write to a daemon's files could lead root, by a link or by what the settings name, to read any file,
//! and by a lock to signal any process. So before anything in there is opened, a command of root's becomes the user who
//! can write there, for good: it needs no more rights than the daemon has.
//!
//! That user may stop a process of its own at any time. So it is a child that becomes the user, and root waits no longer
//! for it than the command can take.

use super::Failure;
use super::output::complain;
use crate::daemon::privileges::{RunAs, can_become_others};
use crate::daemon::writer::{self, Writer};
use crate::exit;
use crate::layout::Layout;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::time::Duration;

/// What a command may take: two deadlines of the client, and the look-up of a name.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Becomes the first user other than root who can change a file of the daemon's. Returns in another process then, which
/// has `timeout` to end.
///
/// # Errors
/// All is root's, but others may write to it.
pub(super) fn take_on(layout: &Layout, timeout: Duration) -> Result<(), Failure> {
    take_on_for(&paths(layout), timeout)
}

/// The same for these paths.
pub(super) fn take_on_for(paths: &[&Path], timeout: Duration) -> Result<(), Failure> {
    if !can_become_others() {
        return Ok(());
    }
    let mut shared = None;
    for path in paths {
        match Writer::of(path).map_err(|e| unusable(path, e))? {
            Writer::Root => {}
            Writer::Owner(user) => return become_user(&user, path, timeout),
            Writer::Others(place) => shared = Some(place),
        }
    }
    let problem = "others can write to it, so root does not open it; chown it to the daemon's user, or chmod go-w";
    shared.map_or(Ok(()), |place| Err(unusable(&place, problem)))
}

/// Goes on as `user`, who can change `path`, in a child of this process.
fn become_user(user: &RunAs, path: &Path, timeout: Duration) -> Result<(), Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| unusable(path, e))?;
    // SAFETY: this process has no other thread yet, so that no lock is held by one that the child lacks.
    match unsafe { fork() }.map_err(|e| unusable(path, e))? {
        ForkResult::Parent { child } => {
            drop(theirs);
            process::exit(wait_for(child, ours, timeout).into())
        }
        ForkResult::Child => {
            drop(ours);
            // The parent sees our end by its end.
            std::mem::forget(theirs);
            user.switch().map_err(|e| unusable(path, e))
        }
    }
}

/// Waits for the end of a child, and returns its exit status.
fn wait_for(child: Pid, mut end: UnixStream, timeout: Duration) -> u8 {
    let waited = end.set_read_timeout(Some(timeout)).and_then(|()| end.read(&mut [0]));
    if waited.is_err_and(|e| e.kind() != ErrorKind::Interrupted) {
        complain(format!("process {child} has not ended within {} s, it is killed", timeout.as_secs()));
        // Nobody else gets its process id before it has been waited for.
        let _ = kill(child, Signal::SIGKILL);
    }
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, status)) => u8::try_from(status).unwrap_or(exit::UNKNOWN),
        _ => exit::UNKNOWN,
    }
}

fn unusable(path: &Path, problem: impl fmt::Display) -> Failure {
    Failure::new(exit::NOT_PERMITTED, format!("{}: {problem}", path.display()))
}

/// Whether [`take_on`] would change nothing: this process opens what is there as whoever it is.
pub(super) fn may_stay(layout: &Layout) -> bool {
    !can_become_others() || writer::is_only_root(paths(layout)).unwrap_or(false)
}

fn paths(layout: &Layout) -> [&Path; 3] {
    [&layout.settings, &layout.state, &layout.pid_file]
}
