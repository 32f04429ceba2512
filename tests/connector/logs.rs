//! The log: where it goes, and rotation.

use crate::harness::{Mode, PATIENCE, Setup, form, public_mapping, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode as Permissions;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::thread;
use std::time::Instant;

const EX_CANTCREAT: i32 = 73;
const EX_CONFIG: i32 = 78;
const EX_USAGE: i32 = 64;

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    let daemon = Setup::new(Mode::Plain).set("logfile", "connector.log").start();
    let (log, old) = (daemon.path("connector.log"), daemon.path("connector.log.1"));
    let text = |file: &std::path::Path| fs::read_to_string(file).unwrap_or_default();
    wait_until("it says that it has started", PATIENCE, || text(&log).contains("started"));
    fs::rename(&log, &old).expect("a log");
    daemon.signal(libc::SIGUSR1);
    wait_until("there is a new file", PATIENCE, || log.exists());
    let mapping = daemon.add_public(1);
    wait_until("it goes on there", PATIENCE, || text(&log).contains(&mapping.id));
    assert!(!text(&old).contains(&mapping.id));
    assert_eq!(daemon.log(), "");
}

#[test]
fn a_rotation_needs_no_signal() {
    let daemon = Setup::new(Mode::Plain).set("logfile", "connector.log").start();
    let (log, old) = (daemon.path("connector.log"), daemon.path("connector.log.1"));
    fs::rename(&log, &old).expect("a log");
    wait_until("it goes on in a new file", PATIENCE, || {
        let mapping = daemon.add_public(1);
        daemon.controller().remove(&mapping);
        log.exists()
    });
    wait_until("lines are written there", PATIENCE, || fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
    assert!(fs::read_to_string(&old).expect("a log").contains("started"));
}

#[test]
fn each_line_has_its_time_in_utc_and_stands_alone() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    wait_until("it is in the log", PATIENCE, || daemon.log().contains(&mapping.id));
    for line in daemon.log().lines() {
        let (time, rest) = line.split_once(' ').expect("a time and more");
        assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        assert!(rest.starts_with('['), "{line}");
    }
}

#[test]
fn with_a_log_file_people_see_why_it_does_not_start_and_so_does_the_log() {
    let daemon = Setup::new(Mode::Plain).prepare();
    fs::write(daemon.path("connector.conf"), "{}").expect("a file");
    let file = daemon.path("connector.log");
    let said = daemon.command(&["start", "--log-file", file.to_str().expect("UTF-8")]);
    assert_eq!(said.status, EX_CONFIG, "{said:?}");
    assert!(said.err.contains("ports"), "{said:?}");
    assert!(fs::read_to_string(file).expect("a log").contains("ports"));
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let said = daemon.command(&["start", "--log-file", "/nonexistent/connector.log"]);
    assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
    assert!(said.err.contains("/nonexistent/connector.log"), "{said:?}");
}

#[test]
fn a_log_file_over_another_file_of_the_daemons_is_refused_before_anything_is_written() {
    for name in ["connector.conf", "configs.json", "server-key.pem", "connector.conf.pid", "token", "access.log"] {
        let daemon = Setup::new(Mode::Tls).set("apitoken", "token").set("accesslog", "access.log").prepare();
        fs::write(daemon.path("token"), "a token of some length").expect("a file");
        let file = daemon.path(name);
        let before = fs::read(&file).ok();
        let said = daemon.command(&["start", "--log-file", file.to_str().expect("UTF-8")]);
        assert_eq!(said.status, EX_USAGE, "{name}: {said:?}");
        let words = format!("--log-file: the daemon needs {} for something else", file.display());
        assert!(said.err.contains(&words), "{name}: {said:?}");
        assert_eq!(fs::read(&file).ok(), before, "{name}");
    }
}

/// More lines than wait for the writer, and than the smallest pipe holds.
const MORE_THAN_WAIT: usize = 1024 + 100;

#[test]
fn a_reader_of_the_log_that_sleeps_keeps_no_signal_from_being_heard() {
    // The daemon's own descriptor keeps the pipe open for writing, ours for reading; nobody reads.
    let script = "exec \"$0\" \"$@\" 2<> \"$FOLDER/pipe\"".to_owned();
    let mut daemon = Setup::new(Mode::Plain).wrapped(script).prepare();
    mkfifo(&daemon.path("pipe"), Permissions::S_IRWXU).expect("a pipe");
    let pipe = File::options().read(true).write(true).open(daemon.path("pipe")).expect("a pipe");
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    daemon.start();
    // Each of these is a line before it is answered.
    let add_and_remove = || {
        for _ in 0..MORE_THAN_WAIT / 16 {
            let entry = daemon.controller().post("/api/v2/direct/add", "").json();
            let id = form("mappingid", entry["id"].as_str().expect("an id"));
            assert_eq!(daemon.controller().post("/api/v2/direct/remove", &id).status, 200);
        }
    };
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(add_and_remove))));
    daemon.signal(libc::SIGUSR1);
    daemon.signal(libc::SIGUSR1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_pipe_in_the_place_of_the_log_is_refused_at_once() {
    let mut daemon = Setup::new(Mode::Plain).set("logfile", "pipe").prepare();
    mkfifo(&daemon.path("pipe"), Permissions::S_IRWXU).expect("a pipe");
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(73), "{}", daemon.log());
}

#[test]
fn the_end_of_each_session_is_told_at_debug_level() {
    let daemon = Setup::new(Mode::Plain).start();
    let (silent, broken) = (daemon.add(&public_mapping(1, 1000)), daemon.add_public(2));
    let _silent = daemon.pair(&silent);
    let (agent, _user) = daemon.pair(&broken);
    agent.reset();
    let (proper, user) = daemon.pair(&broken);
    proper.finish();
    user.expect_clean_end();
    let ends = [
        (&silent, "it has not been heard of for longer than"),
        (&broken, "Connection reset by peer"),
        (&broken, "it has ended"),
    ];
    for (mapping, why) in ends {
        let told = |line: &str| {
            let session = format!("Mapping {}: the session of agent 127.0.0.1:", mapping.id);
            line.contains(&session) && line.contains("and user 127.0.0.1:") && line.contains(why)
        };
        wait_until(why, PATIENCE, || daemon.log().lines().any(told));
    }
    assert_eq!(daemon.log().matches("the session of").count(), ends.len(), "{}", daemon.log());
}

/// Addresses and ports are for others to choose: however many there are, the log stays small.
#[test]
fn a_crowd_of_addresses_at_many_ports_does_not_fill_the_log() {
    const AT_ONCE: usize = 256;
    let daemon = Setup::new(Mode::Plain).start();
    let ports: Vec<u16> = (0..2).flat_map(|_| daemon.add_private(1).ports).collect();
    let start = Instant::now();
    let mut failed = 0;
    for address in 0..=200 {
        for port in &ports {
            let stranger = daemon.dial(*port).from([127, 0, 1, address]).connect().expect("a connection");
            stranger.send(b"abc");
            stranger.finish();
            failed += 1;
        }
    }
    let rejected = || daemon.controller().status("all")["rejected"].as_u64();
    wait_until("all are rejected", PATIENCE, || rejected() == Some(failed));
    let summary = "more log lines about single addresses and ports were held back";
    wait_until("it says how many it did not tell of", PATIENCE, || daemon.log().contains(summary));
    let lines = daemon.log().lines().filter(|line| line.contains("rejected, its passcode has 3 of 36 bytes")).count();
    let most = AT_ONCE + start.elapsed().as_secs() as usize + 1;
    assert!((AT_ONCE / 2..=most).contains(&lines), "{lines} lines, at most {most}");
}
