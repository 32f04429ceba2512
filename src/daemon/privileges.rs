//! From root to a user of its own, at the very start of the daemon.
//!
//! Only the pid file is made as root, and only in a folder where nobody else could have put another file in its place.
//! Settings, certificates, mappings, log and ports are all opened as the user,
//! so that whatever works at the start works as well when it is done again: at a reload, when the log is rotated,
//! when a port is free later. One capability is kept, CAP_NET_BIND_SERVICE, for ports below 1024.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgroups, setresgid, setresuid};
use std::ffi::CString;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Why the daemon cannot run as the user of `--user`.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("--user {0}: there is no such user on this machine")]
    NoSuchUser(String),
    #[error("--user {0}: only root can become another user")]
    NotRoot(String),
    #[error("--user: could not {step}: {cause}")]
    System { step: &'static str, cause: String },
}

/// A user that this process shall run as.
#[derive(Clone, Debug)]
pub struct RunAs {
    uid: Uid,
    gid: Gid,
    /// `None`: a number without a name, and without further groups.
    name: Option<CString>,
}

/// Whether this process is root's and may become another user. In a container root may have lost that right, and has no
/// more rights than an ordinary user then.
pub fn can_become_others() -> bool {
    geteuid().is_root() && caps::has_cap(None, CapSet::Effective, Capability::CAP_SETUID).unwrap_or(true)
}

impl RunAs {
    /// Looks the user up, by name.
    pub fn named(name: &str) -> Result<Self, PrivilegeError> {
        let found = User::from_name(name).map_err(system("read the list of users"))?;
        let user = found.ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))?;
        if !geteuid().is_root() && geteuid() != user.uid {
            return Err(PrivilegeError::NotRoot(name.to_owned()));
        }
        let name = CString::new(user.name).map_err(system("use this user's name"))?;
        Ok(Self { uid: user.uid, gid: user.gid, name: Some(name) })
    }

    /// The owner of a file.
    pub(super) fn owner(metadata: &Metadata) -> io::Result<Self> {
        let uid = Uid::from_raw(metadata.uid());
        Ok(match User::from_uid(uid)? {
            Some(user) => Self { uid, gid: user.gid, name: CString::new(user.name).ok() },
            None => Self { uid, gid: Gid::from_raw(metadata.gid()), name: None },
        })
    }

    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Becomes the user, for good. Must come before any other thread is started: capabilities belong to threads.
    pub fn switch(&self) -> Result<(), PrivilegeError> {
        let (uid, gid) = (self.uid, self.gid);
        if !geteuid().is_root() || uid.is_root() {
            return Ok(());
        }
        let keep = keepable()?;
        forget_other_capabilities(&keep);
        nix::sys::prctl::set_keepcaps(true).map_err(system("keep capabilities"))?;
        let groups = self.name.as_ref().map_or_else(|| setgroups(&[]), |name| initgroups(name, gid));
        groups.map_err(system("take on the user's groups"))?;
        setresgid(gid, gid, gid).map_err(system("take on the user's group"))?;
        setresuid(uid, uid, uid).map_err(system("become the user"))?;
        caps::set(None, CapSet::Effective, &keep).map_err(system("limit capabilities"))?;
        caps::set(None, CapSet::Permitted, &keep).map_err(system("limit capabilities"))?;
        nix::sys::prctl::set_keepcaps(false).map_err(system("keep capabilities no longer"))?;
        nix::sys::prctl::set_no_new_privs().map_err(system("renounce new privileges"))
    }
}

/// The one capability, if this process has it at all: in a container it may not.
fn keepable() -> Result<CapsHashSet, PrivilegeError> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(system("read the capabilities"))?;
    Ok(permitted.intersection(&CapsHashSet::from([Capability::CAP_NET_BIND_SERVICE])).copied().collect())
}

/// No program that this process could ever run gets them back either. Where even that is not permitted there is
/// nothing to get back.
fn forget_other_capabilities(keep: &CapsHashSet) {
    for capability in caps::all().difference(keep) {
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
}

fn system<E: fmt::Display>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |cause| PrivilegeError::System { step, cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_is_not_there_is_named() {
        let error = RunAs::named("nobody-of-that-name").unwrap_err();
        assert!(matches!(error, PrivilegeError::NoSuchUser(_)));
        assert!(error.to_string().contains("nobody-of-that-name"));
    }
}
