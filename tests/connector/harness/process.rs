//! What /proc says about a process under test.

use std::fs;
use std::io;
use std::time::Duration;

/// Resident memory, KiB.
pub fn resident_kib(pid: u32) -> u64 {
    status_number(pid, "VmRSS:")
}

pub fn threads(pid: u32) -> u64 {
    status_number(pid, "Threads:")
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

/// Processor time used so far, in user and kernel mode.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may hold anything; the numbers start behind it, with field 3.
    let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = numbers.split_whitespace().collect();
    let ticks: u64 = [14, 15].iter().map(|field| fields[field - 3].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux that Rust knows
}

fn status_number(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel tells");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether all of it stands still after SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let status = |thread: io::Result<fs::DirEntry>| fs::read_to_string(thread.ok()?.path().join("status")).ok();
    threads.filter_map(status).all(|status| status.contains("\nState:\tT"))
}
