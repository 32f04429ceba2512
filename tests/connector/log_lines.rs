//! What an operator reads in the log: each line about a mapping names it, each about a peer its address.

use crate::harness::{Daemon, Mode, PATIENCE, Setup, public_mapping, wait_until};
use serde_json::json;
use std::fs;
use std::os::linux::fs::MetadataExt;

/// Waits for a line that has all of these.
#[track_caller]
fn expect_line(daemon: &Daemon, parts: &[&str]) {
    let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
    wait_until(&format!("the log has a line with {parts:?}"), PATIENCE, || daemon.log().lines().any(has_all));
}

#[test]
fn the_first_agent_and_the_last_are_told_with_mapping_and_address() {
    let daemon = Setup::new(Mode::Plain).start();
    let mut mapping = public_mapping(3, 0);
    mapping["name"] = json!("web");
    let mapping = daemon.add(&mapping);
    let place = format!("[INFO] Mapping {} (web), port {}: ", mapping.id, mapping.ports[0]);
    let (first, second) = (daemon.agent(&mapping), daemon.agent(&mapping));
    expect_line(&daemon, &[&place, &format!("the first agent, {}, is authorized", first.local())]);
    first.finish();
    first.expect_end();
    let address = second.local();
    second.reset();
    expect_line(&daemon, &[&place, &format!("the last agent, {address}, is gone: Connection reset")]);
    assert_eq!(daemon.log().matches("the last agent").count(), 1, "{}", daemon.log());
    let metrics = daemon.controller().metrics();
    assert_eq!((metrics.of("closed", "agents_lost_total"), metrics.of("reset", "agents_lost_total")), (1.0, 1.0));
    assert_eq!(
        metrics.of(&format!("{},web,public,{},{}", mapping.id, mapping.ports[0], mapping.ports[1]), "mapping_info"),
        1.0
    );
}

#[test]
fn a_handshake_that_fails_is_told_with_reason_and_address_and_counted() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(3);
    for (port, whose) in [(mapping.ports[0], "agent"), (mapping.ports[1], "user")] {
        let peer = daemon.dial(port).without_tls().connect().expect("a connection");
        peer.send_raw(b"GET / HTTP/1.1\r\n\r\n").expect("a connection");
        let told = format!("port {port}: TLS handshake of {whose} {} failed, ", peer.local());
        expect_line(&daemon, &["[INFO] Mapping ", &mapping.id, &told]);
        assert_eq!(daemon.controller().metrics().of(whose, "tls_handshake_failures_total"), 1.0);
        // Who only looks whether the port is open is counted, and no news.
        let look = daemon.dial(port).without_tls().connect().expect("a connection");
        look.finish();
        expect_line(&daemon, &["[DEBUG] Mapping ", &format!("{whose} {} failed, it closed", look.local())]);
    }
    let client = daemon.dial(daemon.ports.api()).without_tls().connect().expect("a connection");
    client.send_raw(b"GET / HTTP/1.1\r\n\r\n").expect("a connection");
    expect_line(&daemon, &["[INFO] API, port ", &format!("TLS handshake of client {} failed, ", client.local())]);
    assert_eq!(daemon.controller().metrics().of("api", "tls_handshake_failures_total"), 1.0);
}

#[test]
fn a_user_without_an_agent_is_told_with_its_address_and_counted() {
    let daemon = Setup::new(Mode::Plain).start();
    let mut mapping = public_mapping(1, 0);
    mapping["waittime"] = json!(0);
    let mapping = daemon.add(&mapping);
    let user = daemon.user(&mapping);
    let address = user.local().to_string();
    user.send(b"hello");
    user.expect_end();
    let place = format!("Mapping {}, port {}: ", mapping.id, mapping.ports[1]);
    expect_line(&daemon, &[&place, &format!("no agent was free for user {address}")]);
    assert_eq!(daemon.controller().metrics().of("no_agent", "users_refused_total"), 1.0);
}

/// No line about a mapping has only a port.
#[test]
fn at_debug_level_the_log_has_our_events_and_nobody_elses() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(3);
    let (agent, user) = daemon.pair(&mapping);
    agent.finish();
    user.expect_clean_end();
    expect_line(&daemon, &["[DEBUG] Mapping ", "bytesport1=0 bytesport2=5", "ended=agent by=agent"]);
    for line in daemon.log().lines() {
        let rest = line.split_once("] ").map_or("", |(_, rest)| rest);
        assert!(!rest.starts_with("mio") && !rest.starts_with("Port "), "{line}");
        assert!(!rest.contains("registering") && !rest.contains("Running accept thread"), "{line}");
    }
}

#[test]
fn under_systemd_lines_have_a_priority_and_no_time() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    fs::write(daemon.path("log"), "").expect("a file");
    let log = fs::metadata(daemon.path("log")).expect("a file");
    daemon.set_environment("JOURNAL_STREAM", format!("{}:{}", log.st_dev(), log.st_ino()));
    daemon.start();
    daemon.add_public(1);
    wait_until("it is told", PATIENCE, || daemon.log().contains("<6>Mapping "));
    assert!(
        daemon.log().lines().all(|line| ["<4>", "<6>", "<7>"].iter().any(|it| line.starts_with(it))),
        "{}",
        daemon.log()
    );
}

#[test]
fn a_variable_of_another_service_changes_nothing() {
    let daemon = Setup::new(Mode::Plain).environment("JOURNAL_STREAM", "1:1").start();
    assert!(daemon.log().starts_with("20"), "{}", daemon.log());
}

#[test]
fn who_stopped_it_is_told() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let answer = daemon.controller().post("/api/v2/commandline", "command=stop");
    assert_eq!(answer.status, 200, "{answer:?}");
    daemon.wait();
    assert!(daemon.log().contains("Stopping: 127.0.0.1 asked for it through the API"), "{}", daemon.log());
    daemon.start();
    daemon.signal(libc::SIGINT);
    daemon.wait();
    assert!(daemon.log().contains("Stopping: SIGINT"), "{}", daemon.log());
}

#[test]
fn reloads_requests_and_the_process_are_in_the_metrics() {
    let daemon = Setup::new(Mode::Plain).start();
    let before = daemon.controller().metrics();
    assert_eq!(before.get("last_reload_success"), 1.0);
    let reload = |expected| {
        daemon.signal(libc::SIGHUP);
        wait_until("the reload is told", PATIENCE, || {
            daemon.controller().metrics().get("last_reload_success") == expected
        });
    };
    let good = fs::read(daemon.path("connector.conf")).expect("settings");
    fs::write(daemon.path("connector.conf"), "{").expect("settings");
    reload(0.0);
    fs::write(daemon.path("connector.conf"), good).expect("settings");
    reload(1.0);
    let taken = "last_reload_success_timestamp_seconds";
    assert_eq!(daemon.controller().post("/api/v2/none", "").status, 404);
    let after = daemon.controller().metrics();
    assert!(after.get(taken) >= before.get(taken));
    assert_eq!(after.of("404", "api_requests_total"), 1.0);
    assert!(after.of("200", "api_requests_total") > before.of("200", "api_requests_total"));
    assert!(after.of_process("open_fds") as usize >= 10 && after.of_process("max_fds") > after.of_process("open_fds"));
    let resident = daemon.resident_kib() as f64 * 1024.0;
    assert!((after.of_process("resident_memory_bytes") - resident).abs() < resident / 4.0);
    assert!(after.of_process("cpu_seconds_total") > 0.0);
    assert!((after.of_process("start_time_seconds") - after.get("start_time_seconds")).abs() < 2.0);
}
