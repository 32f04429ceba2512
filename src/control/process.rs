//! What the kernel knows of this process, as Prometheus' client libraries call it.

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// What could be found out. `None`: there is no /proc, say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub resident_bytes: Option<u64>,
    /// Of all threads, in user and in system mode.
    pub cpu: Option<Duration>,
}

impl Process {
    pub fn read() -> Self {
        // The one that reads the folder is open, too, and is gone when the answer is sent.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|folder| (folder.count() as u64).saturating_sub(1));
        let max_fds = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from);
        Self { open_fds, max_fds, resident_bytes: resident_bytes(), cpu }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_asks_is_told_of_itself() {
        let process = Process::read();
        assert!(process.open_fds >= Some(3) && process.open_fds < process.max_fds, "{process:?}");
        assert!(process.resident_bytes > Some(100_000), "{process:?}");
        assert!(process.cpu > Some(Duration::ZERO) && process.cpu < Some(Duration::from_secs(3600)), "{process:?}");
    }
}
