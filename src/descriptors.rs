//! How many files and sockets this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Assumed if the system does not tell.
const DESCRIPTORS: u64 = 1024;

/// Raises the soft limit to the hard one, and returns what is allowed then.
pub(crate) fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return DESCRIPTORS };
    let is_raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    if is_raised { hard } else { soft }
}
