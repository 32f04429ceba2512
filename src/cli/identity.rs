//! Whom a command of root's acts as.
//!
//! Whoever can write to a daemon's folders could lead root, by a link or by what the settings name, to read any file,
//! and by a lock to signal any process. So before anything in there is opened, a command of root's becomes the user who
//! can write there, for good: it needs no more rights than the daemon has.

use super::Failure;
use crate::daemon::privileges::{Writer, can_become_others};
use crate::exit;
use crate::layout::{Layout, folder_of};
use std::path::Path;

/// Becomes the owner of the first folder of the daemon's that is not root's.
///
/// # Errors
/// A folder is root's, but others may write to it.
pub(super) fn take_on(layout: &Layout) -> Result<(), Failure> {
    if !can_become_others() {
        return Ok(());
    }
    for folder in folders(layout) {
        let unusable = |e| Failure::new(exit::NOT_PERMITTED, format!("{}: {e}", folder.display()));
        match Writer::of(folder).map_err(|e| unusable(e.to_string()))? {
            Writer::Root => {}
            Writer::Owner(user) => return user.switch().map_err(|e| unusable(e.to_string())),
            Writer::Others => {
                let problem = "root opens nothing in a folder of its own that others may write to; give the folder to the \
                               user who shall, or take their right (chmod go-w)";
                return Err(unusable(problem.to_owned()));
            }
        }
    }
    Ok(())
}

/// Whether [`take_on`] would change nothing: this process opens what is there as whoever it is.
pub(super) fn may_stay(layout: &Layout) -> bool {
    let of_roots = |folder| matches!(Writer::of(folder), Ok(Writer::Root));
    !can_become_others() || folders(layout).into_iter().all(of_roots)
}

fn folders(layout: &Layout) -> [&Path; 3] {
    [layout.settings_folder(), &layout.state, folder_of(&layout.pid_file)]
}
