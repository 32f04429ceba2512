//! Staying connected: what comes back by itself, what is given up, and what is not tried too often.

use super::listening_port;
use crate::harness::frames::PING;
use crate::harness::{
    AgentProgram, Daemon, Dial, Mapping, Mode, PATIENCE, Payload, Peer, PlayedConnector, Service, Setup, Version,
    for_both_modes, for_both_versions, in_both_versions, test_certificate, wait_until,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Whether somebody gets through from one end to the echo service at the other.
fn gets_through(connect: impl Fn() -> std::io::Result<Peer>) -> bool {
    let Ok(peer) = connect() else { return false };
    peer.try_send(b"hello", PATIENCE).is_ok_and(|sent| sent) && peer.hears(b"hello", Duration::from_millis(700))
}

fn user_gets_through(daemon: &Daemon, mapping: &Mapping) -> bool {
    gets_through(|| daemon.dial(mapping.ports[1]).connect())
}

#[test]
fn traffic_is_back_after_either_side_was_killed() {
    for_both_versions(|mode, version| {
        let mut daemon = Setup::new(mode).start();
        let (service, mapping) = (Service::echo(), daemon.add_public(8));
        let agent = AgentProgram::new(&daemon, &mapping, 0).speaking(version);
        let mut agent = agent.exposing(service.port, 4).start();
        for _ in 0..2 {
            wait_until("traffic flows", PATIENCE, || user_gets_through(&daemon, &mapping));
            daemon.kill();
            daemon.start();
            wait_until("traffic is back after the daemon", PATIENCE, || user_gets_through(&daemon, &mapping));
            agent.kill();
            agent.respawn();
            wait_until("traffic is back after the agent", PATIENCE, || user_gets_through(&daemon, &mapping));
        }
    });
}

#[test]
fn a_tunnel_is_back_after_the_daemon_was_killed() {
    for_both_modes(|mode| {
        let mut daemon = Setup::new(mode).start();
        let (service, mapping) = (Service::echo(), daemon.add_private(8));
        let port = listening_port(&daemon);
        let _ends = [
            AgentProgram::new(&daemon, &mapping, 1).exposing(service.port, 2).start(),
            AgentProgram::new(&daemon, &mapping, 0).listening(port, 2).start(),
        ];
        let client_gets_through = || gets_through(|| Dial::new(port, None).connect());
        for _ in 0..2 {
            wait_until("traffic flows", PATIENCE, client_gets_through);
            daemon.kill();
            daemon.start();
            wait_until("traffic is back", PATIENCE, client_gets_through);
        }
    });
}

#[test]
fn an_agent_that_starts_first_finds_the_daemon_later() {
    for_both_versions(|mode, version| {
        let mut daemon = Setup::new(mode).start();
        let (service, mapping) = (Service::echo(), daemon.add_public(2));
        daemon.terminate();
        let agent = AgentProgram::new(&daemon, &mapping, 0).speaking(version).exposing(service.port, 2).spawn();
        agent.wait_for("cannot be reached: Connection refused");
        daemon.start();
        agent.wait_for("Authorized");
        wait_until("traffic flows", PATIENCE, || user_gets_through(&daemon, &mapping));
    });
}

/// Watches a failing agent for a while: it must not be busy.
fn expect_patience(agent: &AgentProgram) {
    thread::sleep(Duration::from_secs(2));
    let spent = agent.cpu_time();
    assert!(spent < Duration::from_millis(300), "{spent:?} of processor time:\n{}", agent.log());
}

#[test]
fn a_wrong_passcode_is_said_and_tried_seldom() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(8));
        let wrong = Mapping { passcodes: mapping.passcodes.clone().map(|p| p.replace('-', "+")), ..mapping };
        let agent = AgentProgram::new(daemon, &wrong, 0).speaking(version).exposing(service.port, 8).spawn();
        agent.wait_for("passcode refused");
        expect_patience(&agent);
        assert!(agent.log().lines().count() < 10, "{}", agent.log());
    });
}

#[test]
fn an_agent_that_gets_fewer_connections_than_it_wants_is_told_so_by_both_sides() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(3));
        let agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 8).start();
        agent.wait_for("no place for more connections: 3 of 8 are authorized");
        assert!(!agent.log().contains("passcode refused"), "{}", agent.log());
        assert!(daemon.log().contains("was turned away, all 3 places"), "{}", daemon.log());
    });
}

#[test]
fn attempts_are_few_whatever_the_number_of_connections() {
    // 0.1 s or more, 0.2, 0.4, 0.8, 1.6: a bare connect starts nothing anew.
    let attempts = attempts_in_four_seconds(Version::One);
    assert!((3..=7).contains(&attempts), "{attempts} attempts in 4 s");
}

/// The same, and the one with a hello before them.
#[test]
fn attempts_are_one_more_with_version_2() {
    let attempts = attempts_in_four_seconds(Version::Two);
    assert!((4..=8).contains(&attempts), "{attempts} attempts in 4 s");
}

fn attempts_in_four_seconds(version: Version) -> usize {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let connector = listener.local_addr().expect("it is bound").to_string();
    let _agent = AgentProgram::bare("a passcode that is refused")
        .with(&["--dev", "--connector", &connector])
        .speaking(version)
        .exposing(1, 60)
        .spawn();
    let (mut attempts, end) = (0, Instant::now() + Duration::from_secs(4));
    while Instant::now() < end {
        if let Ok((mut stream, _)) = listener.accept() {
            attempts += 1;
            stream.set_nonblocking(false).expect("a socket");
            let _ = stream.read(&mut [0; 100]);
        }
        thread::sleep(Duration::from_millis(5));
    }
    attempts
}

#[test]
fn an_unreachable_name_is_said_and_tried_seldom() {
    let agent = AgentProgram::bare("a passcode").with(&["--dev", "--connector", "no-such-host.invalid:6000"]);
    let agent = agent.exposing(1, 8).spawn();
    agent.wait_for("Connector no-such-host.invalid:6000: the name could not be looked up");
    expect_patience(&agent);
}

#[test]
fn a_plain_connector_and_a_tls_agent_tell_each_other_apart() {
    for (mode, words) in [(Mode::Plain, "is it in dev mode?"), (Mode::Tls, "TLS is expected (no --dev)")] {
        let daemon = Setup::new(mode).start();
        let mapping = daemon.add_public(1);
        let port = format!("127.0.0.1:{}", mapping.ports[0]);
        let agent = AgentProgram::bare(&mapping.passcodes[0]).with(&["--connector", &port]).exposing(1, 1);
        let agent = if mode == Mode::Tls { agent.with(&["--dev"]) } else { agent };
        agent.spawn().wait_for(words);
    }
}

#[test]
fn a_connector_that_answers_no_heartbeats_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let connector = listener.local_addr().expect("it is bound").to_string();
    let agent = AgentProgram::bare("hush").with(&["--dev", "--connector", &connector]);
    let _agent =
        agent.speaking(Version::One).with(&["--heartbeat", "200", "--threshold", "600"]).exposing(1, 1).spawn();
    let (mut first, _) = listener.accept().expect("a connection");
    first.read_exact(&mut [0; 20]).expect("the preamble of dev mode and the passcode");
    first.write_all(b"iofog/1 dev modeAUTHORIZED").expect("a connection");
    let start = Instant::now();
    let _second = listener.accept().expect("a second connection, for the first was given up");
    let waited = start.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(3)).contains(&waited), "after {waited:?}");
    let mut heard = Vec::new();
    let _ = first.read_to_end(&mut heard);
    assert!(heard.starts_with(b"BEATBEAT"), "{heard:?}");
}

#[test]
fn a_connector_that_answers_no_pings_is_given_up() {
    for_both_modes(|mode| {
        let connector = PlayedConnector::new(mode);
        let agent = connector.agent_with(&["--heartbeat", "200", "--threshold", "600"]);
        let _agent = agent.exposing(1, 1).spawn();
        let first = connector.framed();
        let start = Instant::now();
        let _second = connector.framed();
        let waited = start.elapsed();
        assert!((Duration::from_millis(600)..Duration::from_secs(3)).contains(&waited), "after {waited:?}");
        let (frames, _) = first.until_end();
        assert!(frames.len() >= 2 && frames.iter().all(|frame| frame.kind == PING), "{frames:?}");
    });
}

#[test]
fn a_connector_that_does_not_know_the_preamble_is_asked_without_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let connector = listener.local_addr().expect("it is bound").to_string();
    let service = Service::echo();
    let agent = AgentProgram::bare("hush").with(&["--dev", "--connector", &connector]).speaking(Version::One);
    let agent = agent.with(&["--heartbeat", "0"]).exposing(service.port, 1).spawn();
    let mut read = [0; 100];
    let (mut asked, _) = listener.accept().expect("a connection");
    let count = asked.read(&mut read).expect("a connection");
    assert_eq!(&read[..count], b"iofog/1 dev modehush");
    drop(asked);
    for _ in 0..2 {
        let (mut line, _) = listener.accept().expect("another try, and then another session");
        let count = line.read(&mut read).expect("a connection");
        assert_eq!(&read[..count], b"hush");
        line.write_all(b"AUTHORIZED").expect("a connection");
        agent.wait_for("Authorized by the Connector");
        line.write_all(b"hello").expect("a connection");
        let mut answer = [0; 5];
        line.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"hello");
    }
    let warnings = agent.log().replace("[WARN] the passcode has 4 bytes", "");
    assert!(!warnings.contains("WARN"), "{warnings}");
}

#[test]
fn told_to_stop_it_finishes_what_is_in_flight() {
    in_both_versions(|daemon, version| {
        let (said, everything_is_said) = channel();
        let service = Service::start(move |mut stream| {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(&Payload::new(1).take(100_000));
            let _ = said.send(());
            let _ = stream.read(&mut [0; 100]);
        });
        let mapping = daemon.add_public(2);
        let mut agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 2).start();
        let user = daemon.user(&mapping);
        user.send(b"hello");
        everything_is_said.recv_timeout(PATIENCE).expect("a service that has been asked");
        let start = Instant::now();
        assert_eq!(agent.terminate().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(user.everything(), Payload::new(1).take(100_000));
    });
}

#[test]
fn an_ipv6_address_is_as_good() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let daemon = Setup::new(Mode::Tls).without("listen").start();
    let (service, mapping) = (Service::echo(), daemon.add_public(2));
    let connector = format!("[::1]:{}", mapping.ports[0]);
    let agent = AgentProgram::bare(&mapping.passcodes[0]).with(&["--connector", &connector]);
    let _agent = agent.trusting(&test_certificate().chain).exposing(service.port, 2).start();
    wait_until("traffic flows", PATIENCE, || user_gets_through(&daemon, &mapping));
}
