//! Where a certificate and its key are, or shall be.

use crate::cli::output::complain;
use crate::cli::{Failure, identity};
use crate::daemon::privileges::can_become_others;
use crate::exit;
use nix::unistd::{Gid, Uid, fchown};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A folder for the pair.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub fn certificate(&self) -> PathBuf {
        self.0.join("server-cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.0.join("server-key.pem")
    }

    /// The certificate and the key that are there. The daemon takes either spelling: a new .pem would quietly replace
    /// an old .per.
    pub fn found(&self) -> [Option<PathBuf>; 2] {
        [self.certificate(), self.key()].map(|file| {
            let old = file.with_extension("per");
            [file, old].into_iter().find(|file| exists(file))
        })
    }

    /// Gives a file another name, under which nothing looks for it.
    pub fn set_aside(&self, file: &Path) -> Result<(), Failure> {
        let mut aside = file.as_os_str().to_owned();
        aside.push(".unusable");
        let aside = PathBuf::from(aside);
        fs::rename(file, &aside).map_err(|e| cannot_write(file, &e))?;
        complain(format!("{}: was renamed to {}", file.display(), aside.display()));
        Ok(())
    }

    /// Before anything is opened in the folder: if it is not root's, root becomes the user who can change it.
    pub fn enter(&self) -> Result<(), Failure> {
        identity::take_on_for(&[&self.0], identity::TIMEOUT)
    }

    /// Writes both files, or the certificate alone. They come into place by a rename, when they are durable.
    pub fn write(&self, key: Option<&str>, certificate: &str) -> Result<(), Failure> {
        let key = key.map(|key| New::write(&self.key(), key, true)).transpose()?;
        let certificate = New::write(&self.certificate(), certificate, false)?;
        for file in key.into_iter().chain([certificate]) {
            file.put_in_place()?;
        }
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(|e| cannot_write(&self.0, &e))
    }
}

/// A file that is whole and durable, under a name that nothing looks for.
struct New {
    file: PathBuf,
    temporary: PathBuf,
}

impl New {
    fn write(file: &Path, text: &str, is_secret: bool) -> Result<Self, Failure> {
        let new = Self { file: file.to_owned(), temporary: file.with_extension("pem.new") };
        // What a power cut left behind. If it cannot be removed, the next step says why.
        let _ = fs::remove_file(&new.temporary);
        new.fill(text, is_secret).map_err(|e| cannot_write(file, &e))?;
        Ok(new)
    }

    fn fill(&self, text: &str, is_secret: bool) -> io::Result<()> {
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.temporary)?;
        let folder = fs::metadata(self.temporary.parent().unwrap_or(Path::new(".")))?;
        // Whatever the umask says.
        let mode = match is_secret {
            false => 0o644,
            true if share_with_group(&made, &folder)? => 0o640,
            true => 0o600,
        };
        made.set_permissions(Permissions::from_mode(mode))?;
        made.write_all(text.as_bytes())?;
        made.sync_all()
    }

    fn put_in_place(self) -> Result<(), Failure> {
        fs::rename(&self.temporary, &self.file).map_err(|e| cannot_write(&self.file, &e))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // It is gone if it was put in place.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// In a folder of root's that belongs to another group, that is the daemon's: it may read, and nothing else.
fn share_with_group(file: &File, folder: &fs::Metadata) -> io::Result<bool> {
    if !can_become_others() || folder.uid() != 0 || folder.gid() == 0 {
        return Ok(false);
    }
    fchown(file.as_fd(), Some(Uid::from_raw(0)), Some(Gid::from_raw(folder.gid())))?;
    Ok(true)
}

/// A link counts, wherever it leads.
fn exists(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

fn cannot_write(file: &Path, error: &io::Error) -> Failure {
    Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {error}", file.display()))
}
