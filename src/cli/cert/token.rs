//! The token that the settings name in the state folder: the packages' first settings do, and each machine makes its own.

use super::pair::Place;
use crate::cli::Failure;
use crate::cli::output::say;
use crate::config::Config;
use crate::exit;
use crate::layout::{Layout, folder_of};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use uuid::Uuid;

/// Makes the token if the key `apitoken` names a file of the folder `state` that is not there. As the user who can write
/// there, who is the daemon's: its group may read the token, and nobody else.
pub(super) fn complete(settings: &Path, state: &Path) -> Result<(), Failure> {
    if !state.is_dir() {
        return Ok(());
    }
    Place::new(state).enter()?;
    // What is wrong with the settings is said by the daemon.
    let layout = Layout::new(settings.to_owned(), Some(state.to_owned()), None);
    let Some(file) = Config::load(&layout).ok().and_then(|config| config.api_token) else { return Ok(()) };
    if file.parent() != Some(state) || fs::symlink_metadata(&file).is_ok() {
        return Ok(());
    }
    let cannot_write =
        |e: io::Error| Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {e}", file.display()));
    write(&file).map_err(cannot_write)?;
    say(format!("{}: a new token (key \"apitoken\")", file.display()));
    Ok(())
}

/// Whole and durable, or not at all.
fn write(file: &Path) -> io::Result<()> {
    let temporary = file.with_extension("new");
    // What a power cut left behind. If it cannot be removed, the next step says why.
    let _ = fs::remove_file(&temporary);
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    made.set_permissions(Permissions::from_mode(0o640))?;
    writeln!(made, "{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())?;
    made.sync_all()?;
    fs::rename(&temporary, file)?;
    File::open(folder_of(file))?.sync_all()
}
