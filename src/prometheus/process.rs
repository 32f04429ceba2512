//! What the kernel knows of this process, as Prometheus' client libraries call it.

use super::block;
use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// What could be found out. `None`: there is no /proc, say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
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

/// Under the names of Prometheus' client libraries, which have no prefix. `started`: milliseconds since the epoch.
pub fn of_process(text: &mut String, process: &Process, started: u64) {
    let mut single = |name: &str, help, value: Option<f64>| {
        if let Some(value) = value {
            block(text, "", name, help, [("", value)]);
        }
    };
    let number = |value: Option<u64>| value.map(|value| value as f64);
    single("process_open_fds", "Number of open file descriptors.", number(process.open_fds));
    single("process_max_fds", "Maximum number of open file descriptors.", number(process.max_fds));
    single("process_resident_memory_bytes", "Resident memory size in bytes.", number(process.resident_bytes));
    let cpu = process.cpu.map(|time| time.as_secs_f64());
    single("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu);
    let help = "Start time of the process since unix epoch in seconds.";
    single("process_start_time_seconds", help, Some(started as f64 / 1000.0));
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
