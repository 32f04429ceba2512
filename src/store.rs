//! `configs.json`: the mappings that exist, in the original's format (docs/protocol.md, "Files").
//!
//! The control thread owns the [`Store`]. What [`Store::save`] has returned `Ok` for survives a
//! crash and a power cut; a reader of the file never sees half of it. A file that cannot be
//! understood is never overwritten: loading it fails, and without loading there is no store.

mod record;

use crate::files;
use crate::json;
use crate::layout::folder_of;
use crate::limits::STORE_FILE;
use crate::mapping::Mapping;
use log::warn;
use nix::unistd::{AccessFlags, access};
use record::{Loaded, Record};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file's name, in the state folder.
pub use crate::layout::MAPPINGS as FILE_NAME;

/// Where mappings are kept.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    file: PathBuf,
    /// The next version while it is being written; in the same folder, because only within one file
    /// system a rename is atomic.
    temporary: PathBuf,
}

impl Store {
    /// Opens the store in `file` and loads what is in it; a missing file holds no mappings.
    ///
    /// # Errors
    /// A file that cannot be read or understood, which is left as it is, or there is no folder for it.
    pub fn open(file: &Path) -> Result<(Self, Vec<Mapping>), LoadError> {
        // Where the file is a link (to flash, say), it is the target that gets replaced.
        let file = behind_links(file);
        let mappings = load_at(&file)?;
        let temporary = file.with_extension("json.new");
        // What a crash left behind was never acknowledged. If it cannot be removed, saving will say why.
        let _ = fs::remove_file(&temporary);
        let folder = folder_of(&file).to_owned();
        Ok((Self { folder, file, temporary }, mappings))
    }

    /// Replaces the content by `mappings`. When this returns `Ok`, the file is durable.
    ///
    /// # Errors
    /// The operating system's, with what was being done. The old content stands, unless [`SaveError::is_in_place`].
    pub fn save<'a>(&self, mappings: impl Iterator<Item = &'a Mapping> + Clone) -> Result<(), SaveError> {
        let failed = |step: &'static str| {
            let file = self.file.clone();
            move |cause| SaveError { file, step, is_in_place: false, cause }
        };
        // Opened first: a folder that is gone or locked shall show before anything is replaced.
        let folder = File::open(&self.folder).map_err(failed("open its folder"))?;
        self.write(mappings).map_err(|cause| {
            let _ = fs::remove_file(&self.temporary);
            failed("write its next version")(cause)
        })?;
        fs::rename(&self.temporary, &self.file).map_err(|cause| {
            let _ = fs::remove_file(&self.temporary);
            failed("put its next version in place")(cause)
        })?;
        let synced = folder.sync_all().map_err(failed("make its folder durable"));
        synced.map_err(|error| SaveError { is_in_place: true, ..error })
    }

    fn write<'a>(&self, mappings: impl Iterator<Item = &'a Mapping> + Clone) -> io::Result<()> {
        let file = match self.make_temporary() {
            // Left behind by a save that failed, on a disk that did not even let it be removed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.temporary)?;
                self.make_temporary()?
            }
            made => made?,
        };
        let mut writer = BufWriter::new(file);
        compose(&mut writer, mappings)?;
        writer.flush()?;
        writer.get_ref().sync_all()
    }

    /// Passcodes go in there: nobody else may read it, and no file of another's making is written to.
    fn make_temporary(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.temporary)
    }
}

/// The file that a link leads to, also if nothing is there yet.
fn behind_links(file: &Path) -> PathBuf {
    if let Ok(file) = fs::canonicalize(file) {
        return file;
    }
    match fs::read_link(file) {
        Ok(target) => {
            let target = folder_of(file).join(target);
            warn!("{}: the link leads to {}, which is not there: no mappings yet", file.display(), target.display());
            target
        }
        Err(_) => file.to_owned(),
    }
}

/// What is in `file`; a missing one holds no mappings. Changes nothing.
///
/// # Errors
/// Those of [`Store::open`].
pub fn load(file: &Path) -> Result<Vec<Mapping>, LoadError> {
    load_at(&behind_links(file))
}

/// [`load`], of a file that is no link.
fn load_at(file: &Path) -> Result<Vec<Mapping>, LoadError> {
    match files::read(file, STORE_FILE) {
        Ok(text) => parse(&text).map_err(|cause| LoadError::Invalid { file: file.to_owned(), cause }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::metadata(folder_of(file)) {
            Ok(_) => Ok(Vec::new()),
            // A disk that is not mounted, perhaps: there may well be mappings.
            Err(cause) => Err(LoadError::NoFolder { folder: folder_of(file).to_owned(), cause }),
        },
        Err(cause) => Err(LoadError::Unreadable { file: file.to_owned(), cause }),
    }
}

/// A warning, if nothing could be stored in this folder.
pub fn read_only(folder: &Path) -> Option<String> {
    let errno = access(folder, AccessFlags::W_OK).err()?;
    Some(format!("{}: cannot be written to, so no mapping can be added or removed: {}", folder.display(), errno.desc()))
}

/// Understands a whole `configs.json`.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Mapping>, serde_json::Error> {
    Ok(serde_json::from_slice::<Content<Consistent>>(text)?.mappings.0)
}

/// Writes a whole `configs.json`.
pub(crate) fn compose<'a>(
    writer: impl Write,
    mappings: impl Iterator<Item = &'a Mapping> + Clone,
) -> serde_json::Result<()> {
    serde_json::to_writer(writer, &Content { mappings: Each(mappings) })
}

/// Mappings that do not get into each other's way.
#[derive(Deserialize)]
#[serde(try_from = "Vec<Loaded>")]
struct Consistent(Vec<Mapping>);

impl TryFrom<Vec<Loaded>> for Consistent {
    type Error = String;

    fn try_from(loaded: Vec<Loaded>) -> Result<Self, String> {
        let (mut ids, mut names, mut ports) = (HashSet::new(), HashSet::new(), HashSet::new());
        for Loaded(mapping) in &loaded {
            if !ids.insert(&*mapping.id) {
                return Err(format!("two mappings have the id {}", mapping.id.escape_debug()));
            }
            if let Some(name) = mapping.name().filter(|name| !names.insert(*name)) {
                return Err(format!("two mappings have the name {name}"));
            }
            if let Some(port) = mapping.ports().into_iter().flatten().find(|port| !ports.insert(*port)) {
                return Err(format!("two mappings have the port {port}"));
            }
        }
        if let Some(name) = names.iter().find(|name| ids.contains(*name)) {
            return Err(format!("{name} is the name of a mapping and the id of another one"));
        }
        Ok(Self(loaded.into_iter().map(|Loaded(mapping)| mapping).collect()))
    }
}

/// The file's outermost object.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object like {\"mappings\": [...]}", deny_unknown_fields)]
struct Content<M> {
    mappings: M,
}

/// Writes one record after the other, so that no second list is built.
struct Each<I>(I);

impl<'a, I: Iterator<Item = &'a Mapping> + Clone> Serialize for Each<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().map(Record::of))
    }
}

/// Why there is no store. The daemon does not start; `Display` is one line that names the file.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The folder is not there, or cannot be entered.
    #[error("{folder}: no state folder: {cause}")]
    NoFolder { folder: PathBuf, cause: io::Error },
    /// The file is there and cannot be read.
    #[error("{file}: cannot be read: {cause}")]
    Unreadable { file: PathBuf, cause: io::Error },
    /// The file is not what it should be; the cause says at which line and column.
    #[error(
        "{file}, {}; the file was not changed: correct it, or move it away to start without mappings",
        json::explained(cause)
    )]
    Invalid { file: PathBuf, cause: serde_json::Error },
}

/// Why a change could not be made durable.
#[derive(Debug, Error)]
#[error("could not save {file}: could not {step}: {cause}")]
pub struct SaveError {
    file: PathBuf,
    /// What was being done, as in "could not …".
    step: &'static str,
    is_in_place: bool,
    cause: io::Error,
}

impl SaveError {
    /// The new content can be read already; it is only not sure that it would survive a power cut.
    pub fn is_in_place(&self) -> bool {
        self.is_in_place
    }
}

#[cfg(test)]
mod tests;
