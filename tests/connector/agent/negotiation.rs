//! How our agent finds out which version a Connector speaks, and what happens when that changes while traffic flows
//! (docs/protocol.md, section 10).

use crate::harness::{
    AgentProgram, Daemon, End, Faults, Greeting, Heard, Mapping, Mode, PATIENCE, Payload, Peer, PlayedConnector,
    Service, Setup, for_both_modes, wait_until,
};
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Refuses what it does not know, by the rules of the original: the whole of what it reads is compared with the passcode.
#[track_caller]
fn refuse(connector: &PlayedConnector, expected: &[Greeting]) {
    for expected in expected {
        let (peer, said) = connector.greeted();
        let is_expected = match expected {
            Greeting::Hello(_) => matches!(said, Greeting::Hello(_)),
            other => said == *other,
        };
        assert!(is_expected, "{said:?} instead of {expected:?}");
        drop(peer);
    }
}

/// What an agent says that does not know yet what the Connector speaks, until it says the passcode alone.
fn all_greetings(mode: Mode) -> Vec<Greeting> {
    let hello = Greeting::Hello(Vec::new());
    if mode == Mode::Plain { vec![hello, Greeting::Preamble] } else { vec![hello] }
}

/// A session of version 1, and its end.
#[track_caller]
fn serve(line: &Peer) {
    line.send(b"hello");
    line.expect(b"hello");
    line.finish();
    line.expect_end();
}

#[test]
fn an_old_connector_is_spoken_to_in_version_1_for_ten_minutes() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let (connector, service) = (PlayedConnector::new(mode), Service::echo());
        let agent = faults.arm_agent(connector.agent().exposing(service.port, 1)).spawn();
        refuse(&connector, &all_greetings(mode));
        for _ in 0..3 {
            serve(&connector.unframed());
        }
        let line = connector.unframed();
        faults.pass(Duration::from_secs(590));
        serve(&line);
        let line = connector.unframed();
        faults.pass(Duration::from_secs(610));
        serve(&line);
        // It might have been replaced, and is tried again. It has not.
        refuse(&connector, &all_greetings(mode));
        let line = connector.unframed();
        assert_eq!(agent.log().matches("speaks version 1").count(), 1, "{}", agent.log());
        assert!(!agent.log().contains("WARN"), "{}", agent.log());
        // Now it has.
        faults.pass(Duration::from_secs(1_300));
        serve(&line);
        connector.framed().expect_silence();
        assert_eq!(agent.log().matches("speaks version 1").count(), 1, "{}", agent.log());
    });
}

#[test]
fn a_connector_that_has_no_place_is_not_taken_for_an_old_one() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let connector = PlayedConnector::new(mode);
        let _agent = faults.arm_agent(connector.agent().exposing(1, 1)).spawn();
        refuse(&connector, &all_greetings(mode));
        refuse(&connector, &[Greeting::Bare]);
        let (peer, said) = connector.greeted();
        assert_eq!(said, Greeting::Bare);
        faults.pass(Duration::from_secs(31));
        drop(peer);
        connector.framed().expect_silence();
    });
}

/// A local service that tells what it has heard up to the end.
fn listening() -> (Service, std::sync::mpsc::Receiver<Vec<u8>>) {
    let (sender, heard) = channel();
    let service = Service::start(move |mut stream: TcpStream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    (service, heard)
}

/// What a Connector does behind the first bytes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Ends,
    BreaksOff,
    SaysNothing,
}

#[test]
fn a_connector_that_is_let_down_by_a_hello_is_spoken_to_in_version_1() {
    for_both_modes(|mode| {
        let (service, heard) = listening();
        for (then, cuts) in [
            (Then::Ends, &[0, 1, 7, 8, 9, 12, 19][..]),
            (Then::BreaksOff, &[0, 1, 9, 19]),
            (Then::SaysNothing, &[0, 1, 19]),
        ] {
            for &cut in cuts {
                let connector = PlayedConnector::new(mode);
                let agent = connector.agent().exposing(service.port, 1).spawn();
                let (line, Greeting::Hello(hello)) = connector.greeted() else { panic!("no hello") };
                line.send(b"AUTHORIZED");
                if cut > 0 {
                    line.send(&hello[..cut]);
                }
                let start = Instant::now();
                let kept = match then {
                    Then::Ends => {
                        line.finish();
                        Some(line)
                    }
                    Then::BreaksOff => {
                        line.reset();
                        None
                    }
                    Then::SaysNothing => Some(line),
                };
                // What looked like a hello were the words of a user that has gone.
                if then == Then::Ends && cut > 0 {
                    assert_eq!(heard.recv_timeout(PATIENCE).expect("a session"), hello[..cut], "{cut}");
                }
                let what = format!("{then:?} behind {cut} bytes");
                let (_line, said) = connector.greeted();
                assert!(!matches!(said, Greeting::Hello(_)), "{what}: {said:?}\n{}", agent.log());
                let least = if then == Then::SaysNothing { Duration::from_millis(900) } else { Duration::ZERO };
                let took = start.elapsed();
                assert!(took >= least && took < least + Duration::from_secs(4), "{what}: after {took:?}");
                drop(kept);
            }
        }
    });
}

/// One that has a user at once, who says what looks like a hello.
#[test]
fn what_looks_like_a_hello_and_is_none_is_payload() {
    for_both_modes(|mode| {
        let service = Service::echo();
        // Another token; an earlier version; frames that are too small.
        for (at, bytes) in [(19, &[b'?'][..]), (8, &[1]), (10, &[0, 0]), (10, &[3, 0xff])] {
            let connector = PlayedConnector::new(mode);
            let _agent = connector.agent().exposing(service.port, 1).spawn();
            let (line, Greeting::Hello(mut hello)) = connector.greeted() else { panic!("no hello") };
            let was = hello[at..at + bytes.len()].to_vec();
            hello[at..at + bytes.len()].copy_from_slice(bytes);
            if was == bytes {
                hello[at] ^= 1;
            }
            line.send(b"AUTHORIZED");
            line.send(&hello);
            line.expect(&hello);
            line.finish();
            line.expect_end();
            let (_, said) = connector.greeted();
            assert!(!matches!(said, Greeting::Hello(_)), "{said:?}");
        }
    });
}

/// Sessions of an old daemon, one after the other on each connection of the agent, until it is told to stop. Each has a
/// payload of its own.
fn play_old_daemon(connector: PlayedConnector, stop: &AtomicBool, served: &AtomicU64) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Some(line) = connector.accept_within(Duration::from_millis(20)) else { continue };
            let Heard::Message(said) = line.hear(PATIENCE) else { continue };
            if said != connector.passcode() {
                continue;
            }
            scope.spawn(move || {
                line.send(b"AUTHORIZED");
                // Core Networking reads it alone.
                thread::sleep(Duration::from_millis(60));
                if is_echoed(&line, served.load(Ordering::Relaxed), stop) == Outcome::Whole {
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Its sockets go with it.
        drop(connector);
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    /// It has been cut, and looks like it; what came before was right.
    Cut,
}

/// Sends a payload of its own to an echo and gets it back. Fails the test if anything else comes.
fn is_echoed(peer: &Peer, seed: u64, stop: &AtomicBool) -> Outcome {
    const LENGTH: usize = 40_000;
    let (mut sent, mut heard) = (Payload::new(seed), Payload::new(seed));
    while heard.position() < LENGTH as u64 {
        if sent.position() < LENGTH as u64 && !peer.try_send(&sent.take(1_000), PATIENCE).is_ok_and(|taken| taken) {
            return Outcome::Cut;
        }
        while heard.position() < sent.position() {
            match peer.hear(PATIENCE) {
                Heard::Message(bytes) => heard.check(&bytes),
                Heard::Ended(end) => {
                    // One that has got nothing may not have been served at all.
                    assert!(end != End::Clean || heard.position() == 0, "after {} bytes", heard.position());
                    return Outcome::Cut;
                }
                Heard::Silence => panic!("neither bytes nor the end after {} bytes", heard.position()),
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Outcome::Cut;
        }
    }
    peer.finish();
    Outcome::Whole
}

/// Users of a daemon, one after the other, until they are told to stop.
fn visit(daemon: &Daemon, mapping: &Mapping, stop: &AtomicBool, served: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(user) = daemon.dial(mapping.ports[1]).connect() else { continue };
        if is_echoed(&user, served.load(Ordering::Relaxed), &AtomicBool::new(false)) == Outcome::Whole {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The daemon serves now: the first user that comes, and all that follow.
#[track_caller]
fn expect_service(daemon: &Daemon, mapping: &Mapping) {
    for seed in 0..20 {
        let outcome = is_echoed(&daemon.user(mapping), 1_000 + seed, &AtomicBool::new(false));
        assert_eq!(outcome, Outcome::Whole, "user {seed} after the change");
    }
}

fn wait_for_sessions(served: &AtomicU64) {
    let before = served.load(Ordering::Relaxed);
    wait_until("sessions flow", PATIENCE, || served.load(Ordering::Relaxed) > before + 10);
}

#[test]
fn a_daemon_may_be_replaced_by_an_old_one_and_back_while_traffic_flows() {
    for_both_modes(|mode| {
        let mut daemon = Setup::new(mode).start();
        let (mapping, echo) = (daemon.add_public(4), Service::echo());
        let agent = AgentProgram::new(&daemon, &mapping, 0).exposing(echo.port, 2).start();
        for round in 0..2 {
            let served = AtomicU64::new(0);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                (0..2).for_each(|_| drop(scope.spawn(|| visit(&daemon, &mapping, &stop, &served))));
                wait_for_sessions(&served);
                // In the middle of the sessions of both.
                daemon.signal(libc::SIGTERM);
                stop.store(true, Ordering::Relaxed);
            });
            assert_eq!(daemon.wait().code(), Some(0));
            let old = PlayedConnector::at(mode, mapping.ports[0], &mapping.passcodes[0]);
            let (start, stop, served) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                scope.spawn(|| play_old_daemon(old, &stop, &served));
                wait_until("the old one is served", PATIENCE, || served.load(Ordering::Relaxed) > 0);
                let took = start.elapsed();
                println!("{mode:?}, round {round}: the old daemon was served after {took:?}");
                assert!(took < Duration::from_secs(5), "{took:?}");
                wait_for_sessions(&served);
                stop.store(true, Ordering::Relaxed);
            });
            daemon.start();
            expect_service(&daemon, &mapping);
        }
        assert_eq!(agent.log().matches("speaks version 1").count(), 1, "{}", agent.log());
    });
}

#[test]
fn an_old_daemon_may_be_replaced_by_a_new_one_while_traffic_flows() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let mut daemon = Setup::new(mode).start();
        let (mapping, echo) = (daemon.add_public(4), Service::echo());
        daemon.terminate();
        let old = PlayedConnector::at(mode, mapping.ports[0], &mapping.passcodes[0]);
        let agent = AgentProgram::new(&daemon, &mapping, 0).with(&["--heartbeat", "0"]);
        let _agent = faults.arm_agent(agent.exposing(echo.port, 2)).spawn();
        let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| play_old_daemon(old, &stop, &served));
            wait_for_sessions(&served);
            stop.store(true, Ordering::Relaxed);
        });
        daemon.start();
        expect_service(&daemon, &mapping);
        // After ten minutes the next connections are of version 2, and serve one user after the other.
        let authorized = || daemon.controller().metrics().get("agents_authorized_total");
        faults.pass(Duration::from_secs(601));
        expect_service(&daemon, &mapping);
        wait_until("version 2 is spoken", PATIENCE, || {
            let before = authorized();
            expect_service(&daemon, &mapping);
            authorized() == before
        });
    });
}
