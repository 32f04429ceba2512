//! start and stop: one daemon for each settings file, and the pid file that sees to it.

use crate::harness::{BINARY, Mode, PATIENCE, Setup, wait_until};
use std::fs;
use std::time::Duration;

const EX_NOUSER: i32 = 67;
const EX_CANTCREAT: i32 = 73;
const EX_TEMPFAIL: i32 = 75;

#[test]
fn a_second_start_says_so_and_leaves_the_first_one_alone() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let said = daemon.command(&["start"]);
    assert_eq!((said.status, said.out.as_str()), (0, "iofog-connector is already running.\n"), "{said:?}");
    daemon.pair(&mapping);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn stop_returns_when_the_daemon_is_gone() {
    let mut daemon = Setup::new(Mode::Tls).start();
    let pid = fs::read_to_string(daemon.path("connector.conf.pid")).expect("a pid file");
    assert_eq!(pid, format!("{}\n", daemon.pid()));
    let said = daemon.command(&["stop"]);
    assert_eq!((said.status, said.out.as_str()), (0, "Stopping connector...\n"), "{said:?}");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.path("connector.conf.pid").exists());
    let said = daemon.command(&["stop"]);
    assert_eq!((said.status, said.out.as_str()), (0, "iofog-connector is already stopped.\n"), "{said:?}");
}

#[test]
fn stop_says_when_the_daemon_does_not_end() {
    let mut daemon = Setup::new(Mode::Plain).start();
    daemon.signal(libc::SIGSTOP);
    let said = daemon.command(&["stop", "--timeout", "1"]);
    assert_eq!(said.status, EX_TEMPFAIL, "{said:?}");
    assert!(said.err.contains(&format!("process {} still runs after 1 s", daemon.pid())), "{said:?}");
    daemon.signal(libc::SIGCONT);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_pid_file_that_a_crash_left_behind_is_harmless() {
    let mut daemon = Setup::new(Mode::Plain).start();
    daemon.kill();
    assert!(daemon.path("connector.conf.pid").exists());
    assert_eq!(daemon.command(&["status"]).status, 3);
    assert_eq!(daemon.command(&["stop"]).out, "iofog-connector is already stopped.\n");
    // It may even name a process that runs: this one.
    fs::write(daemon.path("connector.conf.pid"), format!("{}\n", std::process::id())).expect("a file");
    assert_eq!(daemon.command(&["stop"]).out, "iofog-connector is already stopped.\n");
    daemon.start();
    assert_eq!(daemon.command(&["status"]).status, 0);
}

#[test]
fn daemons_with_settings_of_their_own_live_side_by_side() {
    let (mut one, other) = (Setup::new(Mode::Plain).start(), Setup::new(Mode::Tls).start());
    assert_eq!(one.command(&["stop"]).status, 0);
    assert_eq!(one.wait().code(), Some(0));
    assert_eq!((one.command(&["status"]).status, other.command(&["status"]).status), (3, 0));
}

#[test]
fn the_pid_file_may_be_elsewhere() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    let elsewhere = daemon.path("elsewhere.pid");
    let elsewhere = elsewhere.to_str().expect("UTF-8").to_owned();
    let mut started = Setup::new(Mode::Plain).argument("--pid-file").argument(&elsewhere).start();
    assert!(!started.path("connector.conf.pid").exists());
    assert_eq!(started.command(&["status"]).status, 3);
    assert_eq!(started.command(&["status", "--pid-file", &elsewhere]).status, 0);
    assert_eq!(started.command(&["stop", "--pid-file", &elsewhere]).status, 0);
    assert_eq!(started.wait().code(), Some(0));
    // The other one has the place that is the default beside its own settings file.
    daemon.start();
    assert_eq!(daemon.command(&["status"]).status, 0);
}

#[test]
fn a_pid_file_that_cannot_be_written_is_named() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let said = daemon.command(&["start", "--pid-file", "/nonexistent/connector.pid"]);
    assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
    assert!(said.err.contains("/nonexistent/connector.pid") && said.err.contains("--pid-file"), "{said:?}");
}

#[test]
fn a_user_that_does_not_exist_is_named() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let said = daemon.command(&["start", "--user", "nobody-of-that-name"]);
    assert_eq!(said.status, EX_NOUSER, "{said:?}");
    assert!(said.err.contains("nobody-of-that-name"), "{said:?}");
}

/// Twenty here; a thousand were run by hand, see docs/operations.md.
#[test]
fn starting_and_stopping_leaves_nothing_behind() {
    let mut daemon = Setup::new(Mode::Plain).start();
    daemon.add_public(1);
    daemon.terminate();
    let files = || {
        let mut names: Vec<_> =
            fs::read_dir(daemon.folder()).expect("a folder").map(|file| file.unwrap().path()).collect();
        names.sort();
        names
    };
    let before = files();
    let private = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..20 {
        let mut cycle = std::process::Command::new(BINARY);
        cycle.arg("start").arg("--config").arg(daemon.path("connector.conf")).env("TMPDIR", private.path());
        let mut child = cycle.stderr(std::process::Stdio::null()).spawn().expect("the binary");
        wait_until("it runs", PATIENCE, || daemon.command(&["status"]).status == 0);
        assert_eq!(daemon.command(&["stop"]).status, 0);
        let ended = child.wait().expect("a child");
        assert_eq!(ended.code(), Some(0));
    }
    assert_eq!(files(), before);
    assert_eq!(fs::read_dir(private.path()).expect("a folder").count(), 0);
}

#[test]
fn a_daemon_with_as_many_connections_as_descriptors_allow_says_how_many() {
    let daemon = Setup::new(Mode::Plain).descriptors(1024).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "the soft limit was not raised: {line}");
    wait_until("the log says how many", Duration::from_secs(5), || daemon.log().contains(" connections, "));
}
