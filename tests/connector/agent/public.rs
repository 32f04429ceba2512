//! Making a local service reachable through a public pipe.

use crate::harness::{
    AgentProgram, Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Service, Version, in_both_versions, public_mapping,
    wait_until,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn two_hundred_downloads_in_a_row_and_fifty_at_once_are_complete() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::downloads(), daemon.add_public(60));
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 10).start();
        for seed in 0..200 {
            daemon.user(&mapping).download(seed, 10_000);
        }
        thread::scope(|scope| {
            for seed in 0..50 {
                let (daemon, mapping) = (&*daemon, &mapping);
                scope.spawn(move || daemon.user(mapping).download(seed, 200_000));
            }
        });
    });
}

#[test]
fn both_directions_are_busy_at_once() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(1));
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 1).start();
        let user = daemon.user(&mapping);
        let total = if daemon.mode == Mode::Plain { 16 << 20 } else { 4 << 20 };
        thread::scope(|scope| {
            scope.spawn(|| Payload::new(1).send(&user, total));
            scope.spawn(|| Payload::new(1).receive(&user, total));
        });
    });
}

#[test]
fn a_user_that_closes_its_sending_side_gets_the_whole_answer() {
    in_both_versions(|daemon, version| {
        if (daemon.mode, version) == (Mode::Tls, Version::One) {
            return; // it is the end of the session
        }
        let (service, mapping) = (Service::downloads(), daemon.add_public(1));
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 1).start();
        let user = daemon.user(&mapping);
        user.send(b"GET /7/3000000 HTTP/1.0\r\n\r\n");
        user.finish();
        assert!(user.everything().len() > 3_000_000);
    });
}

#[test]
fn a_service_that_closes_its_sending_side_is_heard_to_the_end() {
    in_both_versions(|daemon, version| {
        let service = Service::start(|mut stream| {
            let mut request = [0; 5];
            let _ = stream.read_exact(&mut request);
            let _ = stream.write_all(&Payload::new(3).take(500_000));
            let _ = stream.shutdown(Shutdown::Write);
            // It would go on listening: the session ends all the same.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mapping = daemon.add_public(1);
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 1).start();
        for _ in 0..3 {
            let user = daemon.user(&mapping);
            user.send(b"hello");
            let answer = user.everything();
            assert_eq!(answer.len(), 500_000);
            Payload::new(3).check(&answer);
        }
    });
}

#[test]
fn a_user_of_a_service_that_refuses_sees_an_end() {
    in_both_versions(|daemon, version| {
        let refusing = Service::echo().port;
        let mapping = daemon.add_public(4);
        let agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(refusing, 4).start();
        let start = Instant::now();
        for _ in 0..12 {
            let user = daemon.user(&mapping);
            user.send(b"anybody there?");
            user.expect_end();
        }
        let lines = agent.log().matches("cannot be reached").count() as u64;
        assert!((1..=1 + start.elapsed().as_secs()).contains(&lines), "{lines} lines:\n{}", agent.log());
    });
}

#[test]
fn nothing_is_left_of_sessions_that_have_ended() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(3));
        let agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 3).start();
        let serve = || {
            let user = daemon.user(&mapping);
            user.send(b"hello");
            user.expect(b"hello");
        };
        (0..3).for_each(|_| serve());
        let before = agent.descriptors();
        (0..20).for_each(|_| serve());
        // Each of the three lines and its local connection may be on their way in or out.
        wait_until("all descriptors are closed", PATIENCE, || agent.descriptors() <= before + 6);
    });
}

/// An agent with a short heartbeat, and a mapping whose agents may be silent for so long.
fn beating(
    daemon: &Daemon,
    version: Version,
    every: &str,
    absence_ms: u32,
    service: &Service,
) -> (AgentProgram, Mapping) {
    let mapping = daemon.add(&public_mapping(1, absence_ms));
    let agent = AgentProgram::new(daemon, &mapping, 0)
        .speaking(version)
        .with(&["--heartbeat", every])
        .exposing(service.port, 1)
        .start();
    (agent, mapping)
}

#[test]
fn heartbeats_keep_idle_connections_and_idle_sessions_alive() {
    in_both_versions(|daemon, version| {
        let service = Service::echo();
        let (_agent, mapping) = beating(daemon, version, "300", 2000, &service);
        thread::sleep(Duration::from_secs(3)); // longer than the threshold, without anybody
        let user = daemon.user(&mapping);
        user.send(b"one");
        user.expect(b"one");
        assert_eq!(user.hear(Duration::from_secs(3)), Heard::Silence, "the session outlives the threshold");
        user.send(b"two");
        user.expect(b"two");
        assert!(!daemon.log().contains("has not been heard of"), "{}", daemon.log());
    });
}

#[test]
fn heartbeats_never_get_into_the_payload() {
    in_both_versions(|daemon, version| {
        if (daemon.mode, version) == (Mode::Plain, Version::One) {
            // Nobody can promise it: on a busy machine an answer may run together with payload on both sides.
            return;
        }
        let service = Service::echo();
        let (_agent, mapping) = beating(daemon, version, "20", 0, &service);
        let user = daemon.user(&mapping);
        let (mut sent, mut echoed) = (Payload::new(5), Payload::new(5));
        // Pauses around the interval: payload and heartbeats meet in every way they can.
        for i in 0..120_u64 {
            sent.send(&user, 1 + i * 37 % 900);
            if i % 3 == 0 {
                echoed.receive(&user, sent.position() - echoed.position());
            }
            thread::sleep(Duration::from_millis(i * 7 % 45));
        }
        echoed.receive(&user, sent.position() - echoed.position());
    });
}
