//! The way to tiny_http, which is open to nobody else.

use mio::net::UnixStream;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The private socket on which tiny_http listens. It has no name any more; this descriptor is how it is found.
pub struct ParserSocket(File);

impl ParserSocket {
    /// Makes the private socket. tiny_http gets the listener.
    ///
    /// The socket is bound in a folder of its own and its name removed at once: it can only be reached through a
    /// descriptor of this process. Errors: no temporary folder can be written to.
    pub fn new() -> io::Result<(Self, UnixListener)> {
        let places = [std::env::temp_dir(), PathBuf::from("/run"), PathBuf::from("/dev/shm")];
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let folder = place.join(format!("iofog-connector-{}", uuid::Uuid::new_v4().simple()));
            match Self::bind_in(&folder) {
                Ok(made) => return Ok(made),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn bind_in(folder: &Path) -> io::Result<(Self, UnixListener)> {
        DirBuilder::new().mode(0o700).create(folder)?;
        let name = folder.join("http");
        let made = UnixListener::bind(&name).and_then(|listener| {
            // Not by OpenOptions: musl counts O_PATH among the access modes, and those it does not pass on.
            let socket = open(&name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?.into();
            Ok((Self(socket), listener))
        });
        let removed = fs::remove_dir_all(folder);
        let made = made?;
        removed?;
        Ok(made)
    }

    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}
