//! Who can change what a path leads to.
//!
//! Not the last folder alone decides. Whoever can write to one further up can put another in its place, whoever owns a
//! link on the way says where it leads, and a file may belong to another user than its folder.

use super::privileges::RunAs;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links on one way: the kernel's own limit.
const LINKS: usize = 40;
/// Write permissions of group and others. With an ACL the group's bits are the most that anybody in it may do.
const SHARED: u32 = 0o022;
/// In such a folder nobody may rename or remove what is another's.
const STICKY: u32 = 0o1000;

/// Who can change what stands at a path.
#[derive(Debug)]
pub enum Writer {
    /// Root alone; also if nothing is there, and nobody else could put something there.
    Root,
    /// The first owner on the way who is not root.
    Owner(RunAs),
    /// This is root's, and its permissions let others write to it.
    Others(PathBuf),
}

impl Writer {
    /// Of `path`: from the root folder down to it, through every link.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut ahead: Vec<OsString> = steps(&std::path::absolute(path)?);
        let mut place = PathBuf::new();
        let mut links = 0;
        // The folder, if others may make files in it, but not touch those of root's.
        let mut sticky = None;
        while let Some(step) = ahead.pop() {
            if step == ".." {
                place.pop();
            } else {
                place.push(step);
            }
            let metadata = match fs::symlink_metadata(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(sticky.map_or(Self::Root, Self::Others));
                }
                metadata => metadata?,
            };
            if metadata.uid() != 0 {
                return Ok(Self::Owner(RunAs::owner(&metadata)?));
            }
            if metadata.is_symlink() {
                links += 1;
                if links > LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                ahead.extend(steps(&fs::read_link(&place)?));
                place.pop();
                continue;
            }
            sticky = match metadata.mode() & SHARED {
                0 => None,
                _ if guards_names(&metadata) && !ahead.is_empty() => Some(place.clone()),
                _ => return Ok(Self::Others(place)),
            };
        }
        Ok(Self::Root)
    }
}

/// Whether root alone can change what stands at each of these paths.
pub fn is_only_root<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<bool> {
    for path in paths {
        if !matches!(Writer::of(path)?, Writer::Root) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn guards_names(metadata: &Metadata) -> bool {
    metadata.is_dir() && metadata.mode() & STICKY != 0
}

/// The last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter(|step| *step != std::path::Component::CurDir);
    steps.rev().map(|step| step.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use nix::unistd::geteuid;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    const NOBODY: u32 = 65534;

    fn is_root() -> bool {
        let is_root = geteuid().is_root();
        if !is_root {
            eprintln!("skipped: only root can give files away");
        }
        is_root
    }

    fn owner(path: &Path) -> Option<u32> {
        match Writer::of(path).unwrap() {
            Writer::Owner(user) => Some(user.uid().as_raw()),
            _ => None,
        }
    }

    #[test]
    fn a_folder_above_decides_and_so_do_links_and_the_file_itself() {
        if !is_root() {
            return;
        }
        let folder = Folder::new();
        let (outer, inner) = (folder.0.join("outer"), folder.0.join("outer/inner"));
        fs::create_dir_all(&inner).unwrap();
        let file = inner.join("file");
        fs::write(&file, "").unwrap();
        for path in [&file, &inner, &inner.join("missing"), &inner.join("../inner/./file")] {
            assert!(matches!(Writer::of(path).unwrap(), Writer::Root), "{}", path.display());
        }
        chown(&file, Some(NOBODY), None).unwrap();
        assert_eq!((owner(&file), owner(&inner)), (Some(NOBODY), None));
        chown(&file, Some(0), None).unwrap();

        chown(&outer, Some(NOBODY), None).unwrap();
        for path in [&file, &inner, &inner.join("missing")] {
            assert_eq!(owner(path), Some(NOBODY), "{}", path.display());
        }
        // A link of root's leads there, one of nobody's away from there.
        let link = folder.0.join("link");
        symlink("outer/inner/file", &link).unwrap();
        assert_eq!(owner(&link), Some(NOBODY));
        fs::remove_file(&link).unwrap();
        symlink("/etc", &link).unwrap();
        assert_eq!(owner(&link), None);
        lchown(&link, Some(NOBODY), None).unwrap();
        assert_eq!(owner(&link.join("passwd")), Some(NOBODY));
    }

    #[test]
    fn what_others_may_write_to_is_named() {
        if !is_root() {
            return;
        }
        let folder = Folder::new();
        let (outer, file) = (folder.0.join("outer"), folder.0.join("outer/file"));
        fs::create_dir(&outer).unwrap();
        fs::write(&file, "").unwrap();
        let others = |path: &Path| match Writer::of(path).unwrap() {
            Writer::Others(place) => Some(place),
            _ => None,
        };
        fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        assert_eq!(others(&file), Some(file.clone()));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&outer, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(others(&file), Some(outer.clone()));
        // As /tmp: what is root's there stays root's, and what is not there may become anybody's.
        fs::set_permissions(&outer, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(others(&file), None);
        assert_eq!(others(&outer.join("missing")), Some(outer.clone()));
        assert_eq!(others(&outer), Some(outer));
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let folder = Folder::new();
        let link = folder.0.join("link");
        symlink("link", &link).unwrap();
        if is_root() {
            assert!(Writer::of(&link).is_err());
        }
    }
}
