//! Where the files of a daemon are: a matter of the settings file's name and of options, never of what stands in the
//! settings, so that `stop` finds the daemon whose settings have become unreadable meanwhile.
//!
//! | what | who writes it | where |
//! |---|---|---|
//! | settings, certificate, key, token | the operator | one folder, named by the settings file |
//! | mappings, a certificate that the machine made for itself | the daemon's user | the state folder |
//! | pid file | the daemon, with its lock | /run |
//!
//! Without a state folder of its own everything stands beside the settings file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The settings file that is meant if none is named.
pub const DEFAULT_SETTINGS: &str = "/etc/iofog-connector/iofog-connector.conf";
/// The pid file of its daemon.
const DEFAULT_PID_FILE: &str = "/run/iofog-connector.pid";
/// The state folder of its daemon, on machines that have this folder: packages make it.
const DEFAULT_STATE: &str = "/var/lib/iofog-connector";

/// The file of the mappings, in the state folder.
pub const MAPPINGS: &str = "configs.json";
/// Certificate chain and private key, without the ending.
pub const CERTIFICATE: &str = "server-cert";
pub const KEY: &str = "server-key";
/// Both spellings of that: the second one is in some documentation.
pub const ENDINGS: [&str; 2] = ["pem", "per"];

/// The places of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub settings: PathBuf,
    /// The folder that the daemon writes to.
    pub state: PathBuf,
    pub pid_file: PathBuf,
    /// Nobody named the pid file, and it stands beside what the settings file's name leads to.
    pid_file_follows_settings: bool,
}

impl Layout {
    /// Of the daemon of `settings`; `None` stands for the usual place.
    pub fn new(settings: PathBuf, state: Option<PathBuf>, pid_file: Option<PathBuf>) -> Self {
        let state = state.unwrap_or_else(|| usual_state(&settings, Path::new(DEFAULT_STATE)));
        let usual = usual_pid_file(&settings);
        let pid_file_follows_settings = pid_file.is_none() && usual != Path::new(DEFAULT_PID_FILE);
        Self { settings, state, pid_file: pid_file.unwrap_or(usual), pid_file_follows_settings }
    }

    /// The files that the daemon reads or writes by name, which no log may be.
    pub fn own_files(&self) -> impl Iterator<Item = PathBuf> {
        let pair_in = |folder: &Path| {
            let stems = [CERTIFICATE, KEY].map(|stem| folder.join(stem));
            stems.map(|stem| ENDINGS.map(|ending| stem.with_extension(ending))).into_iter().flatten()
        };
        let pairs = pair_in(folder_of(&self.settings)).chain(pair_in(&self.state));
        [self.settings.clone(), self.pid_file.clone(), self.state.join(MAPPINGS)].into_iter().chain(pairs)
    }

    /// Whoever can change one of these can say where the pid file is.
    pub fn decides_on_pid_file(&self) -> impl Iterator<Item = &Path> {
        let settings = self.pid_file_follows_settings.then_some(self.settings.as_path());
        std::iter::once(folder_of(&self.pid_file)).chain(settings)
    }
}

/// The folder that `file` stands in. `Path::parent` of a bare file name is the empty path, which joins well but does
/// not open.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The same path for every name of a file, which need not be there yet: links lead to where they lead.
fn resolved(file: &Path) -> PathBuf {
    let beside = || Ok::<_, io::Error>(fs::canonicalize(folder_of(file))?.join(file.file_name().unwrap_or_default()));
    let resolved = fs::canonicalize(file).or_else(|_| beside()).or_else(|_| std::path::absolute(file));
    resolved.unwrap_or_else(|_| file.to_owned())
}

/// Whether these are names of one file. The default settings file may be a link to where an operator keeps them: either
/// name means the default then.
pub fn is_one_file(one: &Path, other: &Path) -> bool {
    one == other || resolved(one) == resolved(other)
}

fn usual_state(settings: &Path, default: &Path) -> PathBuf {
    if is_one_file(settings, Path::new(DEFAULT_SETTINGS)) && default.is_dir() {
        return default.to_owned();
    }
    folder_of(settings).to_owned()
}

/// In /run for the default settings file, beside the settings file for any other. However the path is spelled, the
/// answer is the same.
fn usual_pid_file(settings: &Path) -> PathBuf {
    if is_one_file(settings, Path::new(DEFAULT_SETTINGS)) {
        return DEFAULT_PID_FILE.into();
    }
    let mut path = resolved(settings).into_os_string();
    path.push(".pid");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_default_settings_file_has_its_pid_file_in_run() {
        assert_eq!(usual_pid_file(Path::new(DEFAULT_SETTINGS)), Path::new(DEFAULT_PID_FILE));
    }

    #[test]
    fn any_other_settings_file_has_it_beside_however_it_is_spelled() {
        let folder = Folder::new();
        let settings = folder.0.join("second.conf");
        fs::write(&settings, "").unwrap();
        let link = folder.0.join("link.conf");
        std::os::unix::fs::symlink(&settings, &link).unwrap();
        let expected = fs::canonicalize(&folder.0).unwrap().join("second.conf.pid");
        for spelling in [&settings, &link, &folder.0.join("./second.conf")] {
            assert_eq!(usual_pid_file(spelling), expected);
        }
    }

    #[test]
    fn the_default_may_be_a_link() {
        let folder = Folder::new();
        let (default, theirs) = (folder.0.join("default.conf"), folder.0.join("theirs.conf"));
        assert!(is_one_file(&default, &default) && !is_one_file(&theirs, &default));
        fs::write(&theirs, "").unwrap();
        std::os::unix::fs::symlink("theirs.conf", &default).unwrap();
        assert!(is_one_file(&default, &default) && is_one_file(&theirs, &default));
    }

    #[test]
    fn the_default_settings_file_has_a_state_folder_where_there_is_one() {
        let folder = Folder::new();
        assert_eq!(usual_state(Path::new(DEFAULT_SETTINGS), &folder.0), folder.0);
        let missing = folder.0.join("missing");
        assert_eq!(usual_state(Path::new(DEFAULT_SETTINGS), &missing), Path::new("/etc/iofog-connector"));
    }

    #[test]
    fn the_state_of_any_other_stands_beside_it_unless_a_folder_is_named() {
        let layout = Layout::new("/x/second.conf".into(), None, None);
        assert_eq!((layout.state.as_path(), layout.pid_file.as_path()), ("/x".as_ref(), "/x/second.conf.pid".as_ref()));
        let layout = Layout::new("/x/second.conf".into(), Some("/y".into()), Some("/z/pid".into()));
        assert_eq!((layout.state.as_path(), layout.pid_file.as_path()), ("/y".as_ref(), "/z/pid".as_ref()));
        assert_eq!(Layout::new("bare.conf".into(), None, None).state, Path::new("."));
    }
}
