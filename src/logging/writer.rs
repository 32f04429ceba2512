//! Puts lines where they belong, and lives with it if that does not work.

use crate::layout::folder_of;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, access};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whether a log to this file could be started. Makes no file.
///
/// # Errors
/// What that would fail with.
pub fn can_be_opened(path: &Path) -> io::Result<()> {
    match open(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link may lead to where there is nothing yet.
            let place = fs::read_link(path).map_or_else(|_| path.to_owned(), |target| folder_of(path).join(target));
            Ok(access(folder_of(&place), AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        opened => opened.map(|_| ()),
    }
}

/// Not for everybody: addresses of agents and users stand in there.
fn open(path: &Path, may_make: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // To open a FIFO would wait for a reader, unless told not to. From then on lines may wait: they have a thread.
    options.append(true).create(may_make).mode(0o640).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Writes whole lines.
pub(super) struct Writer {
    /// `None`: to standard error.
    file: Option<(PathBuf, File)>,
    /// The last line may be there in part.
    torn: bool,
}

impl Writer {
    /// To the end of a file, which is made if need be, or to standard error.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| open(path, true).map(|file| (path.to_owned(), file))).transpose()?;
        Ok(Self { file, torn: false })
    }

    /// Writes `line`; `false` if it, or its end, is lost.
    pub fn write(&mut self, line: &[u8]) -> bool {
        let out: &mut dyn Write = match &mut self.file {
            None => &mut io::stderr(),
            Some((_, file)) => file,
        };
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        self.torn = out.write_all(start).and_then(|()| out.write_all(line)).is_err();
        !self.torn
    }

    /// Opens the file again. If that fails the old one is kept: better a line in the wrong file than none.
    pub fn reopen(&mut self) {
        if let Some((path, file)) = &mut self.file {
            match open(path, true) {
                Ok(new) => (*file, self.torn) = (new, false),
                Err(error) => log::warn!("{} cannot be reopened ({error}); the old file is kept", path.display()),
            }
        }
    }
}
