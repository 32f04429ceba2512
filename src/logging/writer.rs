//! Puts lines where they belong, and lives with it if that does not work.

use crate::layout::folder_of;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, access};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to look whether the file has been moved away. So a rotation needs no signal, and nobody who would send one
/// as the user of this process, whom that user may keep waiting.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a log to this file could be started. Makes no file, and opens no device, which has an effect: who asks may be
/// root, in a folder of somebody else's.
///
/// # Errors
/// What that would fail with.
pub fn can_be_opened(path: &Path) -> io::Result<()> {
    match open_unless_device(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link may lead to where there is nothing yet.
            let place = fs::read_link(path).map_or_else(|_| path.to_owned(), |target| folder_of(path).join(target));
            Ok(access(folder_of(&place), AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        opened => opened,
    }
}

fn open_unless_device(path: &Path) -> io::Result<()> {
    // It stays the same file in the meantime (open(2), O_PATH).
    let there = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let kind = there.metadata()?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(access(path, AccessFlags::W_OK)?);
    }
    open(Path::new(&format!("/proc/self/fd/{}", there.as_raw_fd())), false).map(drop)
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
    /// When it was looked whether the file is still the one of this name.
    looked: Instant,
    /// It is not, and no other can be opened: said once.
    is_stuck: bool,
}

impl Writer {
    /// To the end of a file, which is made if need be, or to standard error.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| open(path, true).map(|file| (path.to_owned(), file))).transpose()?;
        Ok(Self { file, torn: false, looked: Instant::now(), is_stuck: false })
    }

    /// Writes `line`; `false` if it, or its end, is lost.
    pub fn write(&mut self, line: &[u8]) -> bool {
        self.look();
        let out: &mut dyn Write = match &mut self.file {
            None => &mut io::stderr(),
            Some((_, file)) => file,
        };
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        self.torn = out.write_all(start).and_then(|()| out.write_all(line)).is_err();
        !self.torn
    }

    /// Goes on in a new file if the present one has been moved away or removed.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if self.file.as_ref().is_some_and(|(path, file)| is_moved(path, file)) {
            self.reopen();
        }
    }

    /// Opens the file again. If that fails the old one is kept: better a line in the wrong file than none.
    pub fn reopen(&mut self) {
        let Some((path, file)) = &mut self.file else { return };
        match open(path, true) {
            Ok(new) => (*file, self.torn, self.is_stuck) = (new, false, false),
            Err(error) if !std::mem::replace(&mut self.is_stuck, true) => {
                log::warn!("{} cannot be reopened ({error}); the old file is kept", path.display());
            }
            Err(_) => {}
        }
    }
}

/// Whether something else has the name of this file by now, or nothing. If that cannot be told, it has not moved.
fn is_moved(path: &Path, file: &File) -> bool {
    let Ok(open) = file.metadata() else { return false };
    match fs::metadata(path) {
        Ok(there) => (there.dev(), there.ino()) != (open.dev(), open.ino()),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
