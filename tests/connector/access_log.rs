//! The access log: a line a session, whose fields add up to the metrics.

use crate::harness::frames::{DATA, FIN, RESET};
use crate::harness::{
    Daemon, Mapping, Metrics, Mode, PATIENCE, Setup, for_both_modes, join, public_mapping, wait_until,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;

/// The fields of a line of text. The time is `time`.
fn fields(line: &str) -> HashMap<String, String> {
    let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no time: {line}"));
    assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
    let field = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word} is no field: {line}"));
        (key.to_owned(), value.to_owned())
    };
    rest.split(' ').map(field).chain([("time".to_owned(), time.to_owned())]).collect()
}

fn text(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.path("access.log")).unwrap_or_default()
}

/// The sessions that have ended, when there are `count`.
#[track_caller]
pub fn sessions(daemon: &Daemon, count: usize) -> Vec<HashMap<String, String>> {
    wait_until(&format!("{count} sessions are told of"), PATIENCE, || text(daemon).lines().count() >= count);
    let sessions: Vec<_> = text(daemon).lines().map(fields).collect();
    assert_eq!(sessions.len(), count, "{}", text(daemon));
    sessions
}

pub fn number(fields: &HashMap<String, String>, key: &str) -> f64 {
    fields[key].parse().unwrap_or_else(|error| panic!("{key}: {error} in {fields:?}"))
}

pub fn with_access_log(mode: Mode) -> Setup {
    Setup::new(mode).set("accesslog", "access.log")
}

/// A public mapping of this name.
fn add_named(daemon: &Daemon, name: &str, absence_ms: u32) -> Mapping {
    let mut mapping = public_mapping(3, absence_ms);
    mapping["name"] = json!(name);
    daemon.add(&mapping)
}

#[test]
fn a_session_is_a_line_with_who_what_and_how_it_ended() {
    for_both_modes(|mode| {
        let daemon = &with_access_log(mode).start();
        let mapping = add_named(daemon, "web", 0);
        let (agent, user) = daemon.pair(&mapping);
        agent.send(b"answer");
        user.expect(b"answer");
        let addresses = [agent.local(), user.local()].map(|address| address.to_string());
        agent.finish();
        user.expect_clean_end();
        let line = &sessions(daemon, 1)[0];
        let tls = if daemon.mode == Mode::Tls { "TLSv1.3" } else { "-" };
        for (key, value) in [
            ("mapping", mapping.id.as_str()),
            ("name", "web"),
            ("agent", &addresses[0]),
            ("user", &addresses[1]),
            ("bytesport1", "6"),
            ("bytesport2", "5"), // "hello"
            ("tlsport1", tls),
            ("tlsport2", tls),
            ("ended", "agent"),
            ("by", "agent"),
        ] {
            assert_eq!(line[key], value, "{key} in {line:?}");
        }
        assert!((0.0..60.0).contains(&number(line, "duration")), "{line:?}");
    });
}

#[test]
fn how_a_session_ended_is_told_apart_and_the_metrics_agree() {
    let mut daemon = with_access_log(Mode::Plain).start();
    let (silent, public) = (add_named(&daemon, "silent", 1000), daemon.add_public(10));
    let (removed, private) = (daemon.add_public(1), daemon.add_private(1));
    let mut idle = public_mapping(1, 0);
    idle["idletimeout"] = json!(1);
    let idle = daemon.add(&idle);
    let _silent = daemon.pair(&silent);
    let _idle = daemon.pair(&idle);
    let (agent, _user) = daemon.pair(&public);
    agent.reset();
    let (_agent, user) = daemon.pair(&public);
    user.reset();
    let (agent, user) = daemon.pair(&public);
    agent.send(&[b'x'; 100_000]);
    user.expect(&[b'x'; 100_000]);
    agent.finish();
    user.expect_clean_end();
    let (left, right) = (daemon.agent_on(&private, 0), daemon.agent_on(&private, 1));
    left.send(b"to the right");
    right.expect(b"to the right");
    let _removed = daemon.pair(&removed);
    daemon.controller().remove(&removed);
    // One that waits for its agent.
    let user = daemon.user(&public);
    user.send(b"hello");
    wait_until("it waits", PATIENCE, || daemon.controller().status(&public.id)["waiting"] == 1);
    let agent = daemon.agent(&public);
    agent.expect(b"hello");
    let _open = (agent, user);
    let before = sessions(&daemon, 6);
    let metrics = daemon.controller().metrics();
    agree(&metrics, &before);
    // Two go on, and are told of at the end.
    assert_eq!(metrics.get("sessions_total"), 8.0);
    assert!(daemon.terminate().success());
    let after = sessions(&daemon, 8);
    let mut ends: Vec<_> = after.iter().map(|line| line["ended"].as_str()).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["absence", "agent", "idle", "removed", "reset", "reset", "stop", "stop"]);
    let of = |id: &str| after.iter().find(|line| line["mapping"] == id).expect("a line");
    assert_eq!(
        (of(&private.id)["agent2"].clone(), of(&private.id)["waited"].as_str()),
        (right.local().to_string(), "-")
    );
    let waited = after.iter().find(|line| line["ended"] == "stop" && line["mapping"] == public.id).expect("a line");
    assert!(number(waited, "waited") > 0.0 && number(waited, "duration") >= 0.0, "{waited:?}");
    assert_eq!(after.iter().map(|line| number(line, "bytesport1")).sum::<f64>(), 100_012.0);
    assert!(daemon.log().contains("Stopping: SIGTERM"), "{}", daemon.log());
}

/// Nobody knows whether such a user has sent all that it wanted to: the network may have cut it off.
#[test]
fn a_user_that_leaves_without_close_notify_is_told_alike_with_both_versions() {
    let daemon = with_access_log(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let (agent, user) = daemon.pair(&mapping);
    agent.send(b"answer");
    user.expect(b"answer");
    user.cut();
    sessions(&daemon, 1);
    let mapping = daemon.add_public(1);
    let framed = daemon.framed_agent(&mapping);
    let user = daemon.user(&mapping);
    framed.expect_open(1);
    user.send(b"hello");
    framed.expect_data(1, b"hello");
    framed.send(DATA, 1, b"answer");
    user.expect(b"answer");
    user.cut();
    for line in sessions(&daemon, 2) {
        assert_eq!((&line["ended"][..], &line["by"][..]), ("truncated", "user"), "{line:?}");
    }
}

#[test]
fn a_half_closed_session_that_silence_ends_is_told_as_one() {
    for_both_modes(|mode| {
        let daemon = with_access_log(mode).start();
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let mut users = vec![daemon.user(&mapping)];
        agent.expect_open(1);
        let mut next = |session| {
            // Half-closed sessions make room for who waits.
            users.push(daemon.user(&mapping));
            agent.expect_besides_want(RESET, session);
            agent.send(RESET, session, &[1]);
            agent.expect_open(session + 1);
            users.last().expect("it has just come").finish()
        };
        agent.send(FIN, 1, b"");
        next(1);
        agent.expect_besides_want(FIN, 2);
        next(2);
        let told: Vec<_> =
            sessions(&daemon, 2).iter().map(|line| (line["ended"].clone(), line["by"].clone())).collect();
        assert_eq!(told, [("timeout", "user"), ("timeout", "agent")].map(|(how, by)| (how.into(), by.into())));
    });
}

/// What the lines say of ended sessions, and what the metrics do.
#[track_caller]
pub fn agree(metrics: &Metrics, lines: &[HashMap<String, String>]) {
    let count = lines.len() as f64;
    assert_eq!(metrics.sum("sessions_ended_total"), count);
    assert_eq!(metrics.get("session_duration_seconds_count"), count);
    assert_eq!(metrics.of("+Inf", "session_duration_seconds_bucket"), count);
    for cause in ["user", "agent", "reset", "absence", "idle", "removed", "stop"] {
        let told = lines.iter().filter(|line| line["ended"] == cause).count();
        assert_eq!(metrics.of(cause, "sessions_ended_total"), told as f64, "{cause}");
    }
    let durations: f64 = lines.iter().map(|line| number(line, "duration")).sum();
    let sum = metrics.get("session_duration_seconds_sum");
    assert!((sum - durations).abs() < 0.001 * count, "{sum} and {durations}");
    let gone = metrics.get("agents_authorized_total") - metrics.sum("agents_lost_total");
    assert_eq!(gone, metrics.get("agents"));
}

#[test]
fn bytes_of_all_lines_are_the_bytes_of_the_metrics() {
    for_both_modes(|mode| {
        let daemon = &with_access_log(mode).start();
        let mapping = daemon.add_public(2);
        for round in 1..=10 {
            let (agent, user) = daemon.pair(&mapping);
            let payload = vec![b'p'; round * 10_000];
            user.send(&payload);
            agent.expect(&payload);
            agent.send(&payload[1..]);
            user.expect(&payload[1..]);
            agent.finish();
            user.expect_clean_end();
        }
        let lines = sessions(daemon, 10);
        let metrics = daemon.controller().metrics();
        agree(&metrics, &lines);
        for (port, field) in [("port1", "bytesport1"), ("port2", "bytesport2")] {
            let told: f64 = lines.iter().map(|line| number(line, field)).sum();
            assert_eq!(metrics.of(port, "received_bytes_total"), told, "{port}");
            assert_eq!(metrics.get(&format!("{port}_received_bytes_total")), told, "the old name");
            assert_eq!(metrics.of(&format!("{},{port}", mapping.id), "mapping_received_bytes_total"), told);
        }
        assert_eq!(metrics.get("agent_wait_seconds_count"), 10.0);
    });
}

#[test]
fn a_rotated_access_log_goes_on_in_a_new_file() {
    let daemon = with_access_log(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let session = || {
        let (agent, user) = daemon.pair(&mapping);
        agent.finish();
        user.expect_clean_end();
    };
    session();
    sessions(&daemon, 1);
    fs::rename(daemon.path("access.log"), daemon.path("access.log.1")).expect("a log");
    daemon.signal(libc::SIGUSR1);
    wait_until("there is a new file", PATIENCE, || daemon.path("access.log").exists());
    session();
    sessions(&daemon, 1);
    assert_eq!(fs::read_to_string(daemon.path("access.log.1")).expect("a log").lines().count(), 1);
}

#[test]
fn with_json_each_line_of_both_logs_is_an_object() {
    let daemon = with_access_log(Mode::Tls).argument("--log-format").argument("json").start();
    let mapping = add_named(&daemon, "web", 0);
    let (agent, user) = daemon.pair(&mapping);
    agent.finish();
    user.expect_clean_end();
    wait_until("a line", PATIENCE, || text(&daemon).ends_with('\n'));
    let line: Value = serde_json::from_str(&text(&daemon)).expect("JSON");
    assert_eq!((&line["mapping"], &line["name"]), (&json!(mapping.id), &json!("web")));
    assert_eq!((&line["bytesport2"], &line["tlsport2"]), (&json!(5), &json!("TLSv1.3")));
    assert!(line["duration"].is_f64(), "{line}");
    for line in daemon.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["info", "warn", "debug"].contains(&line["level"].as_str().expect("a level")), "{line}");
        assert_eq!(line["time"].as_str().map(str::len), Some(24), "{line}");
    }
}

#[test]
fn lines_that_are_lost_are_counted_and_told_and_stop_nobody() {
    let daemon = Setup::new(Mode::Plain).set("accesslog", "/dev/full").start();
    let mapping = daemon.add_public(2);
    for _ in 0..3 {
        let (agent, user) = daemon.pair(&mapping);
        agent.finish();
        user.expect_clean_end();
    }
    wait_until("they are counted", PATIENCE, || {
        daemon.controller().metrics().of("access", "log_lines_lost_total") == 3.0
    });
    assert_eq!(daemon.controller().metrics().of("log", "log_lines_lost_total"), 0.0);
}

#[test]
fn an_access_log_that_cannot_be_opened_is_named_with_its_key() {
    let mut daemon = Setup::new(Mode::Plain).set("accesslog", "/nonexistent/access.log").prepare();
    let said = daemon.command(&["check"]);
    assert!(said.status == 78 && said.err.contains("/nonexistent/access.log (key \"accesslog\")"), "{said:?}");
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(73));
    assert!(daemon.log().contains("/nonexistent/access.log (key \"accesslog\")"), "{}", daemon.log());
}

#[test]
fn users_that_find_an_agent_at_once_have_not_waited() {
    let daemon = with_access_log(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let agent = daemon.agent(&mapping);
    let user = daemon.user(&mapping);
    join(&agent, &user);
    let metrics = daemon.controller().metrics();
    assert_eq!(metrics.of("0.001", "agent_wait_seconds_bucket"), 1.0);
}
