//! Reading files that others may have made: never longer than allowed, and never waiting for anybody.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// All of `path`, which must be a regular file of `most` bytes at most.
///
/// # Errors
/// The operating system's, or what was expected instead.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // To open a FIFO would wait for its other end, unless told not to.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    expect_regular(&file)?;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("longer than the {most} bytes that are allowed")));
    }
    Ok(content)
}

/// [`read`], as text.
///
/// # Errors
/// Those of [`read`], and [`io::ErrorKind::InvalidData`].
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not valid UTF-8"))
}

/// Refuses everything but a regular file.
///
/// # Errors
/// It is another kind of file.
pub fn expect_regular(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("a regular file was expected")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use nix::sys::stat::Mode;
    use std::fs;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = Folder::new();
        let file = folder.0.join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert!(read(&file, 4).unwrap_err().to_string().contains("4 bytes"));
        assert_eq!(read(&folder.0.join("missing"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = Folder::new();
        let fifo = folder.0.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero"), &folder.0] {
            assert!(read(path, 5).unwrap_err().to_string().contains("regular file"), "{}", path.display());
        }
    }
}
