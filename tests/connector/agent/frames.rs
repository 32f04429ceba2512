//! Version 2 of the pipe protocol, as our own agent speaks it with our own Connector, and with one that the test plays
//! (docs/protocol.md, section 10).

use super::listening_port;
use crate::harness::frames::{ACCEPT, BYE, DATA, FIN, Frames, NOBODY, OPEN, PING, PONG, RESET, WANT, frame};
use crate::harness::{
    AgentProgram, Daemon, Dial, Distance, End, Faults, Mapping, Mode, PATIENCE, Payload, Peer, PlayedConnector,
    Service, Setup, Version, for_both_modes, in_both_modes, public_mapping, wait_until,
};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// An agent and a daemon with one connection between them, and a service.
pub fn with_one_connection(daemon: &Daemon, service: &Service) -> (Mapping, AgentProgram) {
    let mapping = daemon.add_public(1);
    let agent = AgentProgram::new(daemon, &mapping, 0).exposing(service.port, 1).start();
    (mapping, agent)
}

/// How often an agent was authorized since the daemon has begun.
pub fn authorized(daemon: &Daemon) -> f64 {
    daemon.controller().metrics().get("agents_authorized_total")
}

#[test]
fn ten_thousand_sessions_follow_each_other_on_one_connection() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let (mapping, agent) = with_one_connection(daemon, &service);
        let count = if daemon.mode == Mode::Plain { 10_000 } else { 1_000 };
        let (mut memory, mut descriptors) = (0, 0);
        for session in 0..count {
            if session == count / 10 {
                memory = agent.resident_kib() + daemon.resident_kib();
                descriptors = agent.descriptors() + daemon.descriptors();
            }
            let user = daemon.user(&mapping);
            let length = 1 + session as usize * 7 % 3_000;
            user.send(&Payload::new(session).take(length));
            user.finish();
            let echo = user.everything();
            assert_eq!(echo.len(), length, "session {session}");
            Payload::new(session).check(&echo);
        }
        assert_eq!(authorized(daemon), 1.0, "one connection for all of them");
        let now = agent.resident_kib() + daemon.resident_kib();
        assert!(now < memory + 512, "{memory} KiB became {now}");
        wait_until("no descriptor is left over", PATIENCE, || {
            agent.descriptors() + daemon.descriptors() <= descriptors + 1
        });
    });
}

#[test]
fn a_service_that_speaks_first_is_heard_at_once() {
    in_both_modes(|daemon| {
        let service = Service::start(|mut stream| {
            let _ = stream.write_all(b"220 ready\r\n");
            let _ = std::io::copy(&mut &stream, &mut &stream);
        });
        let mapping = daemon.add_public(4);
        let _agent = AgentProgram::new(daemon, &mapping, 0).exposing(service.port, 2).start();
        let users: Vec<Peer> = (0..3).map(|_| daemon.user(&mapping)).collect();
        for user in &users {
            user.expect(b"220 ready\r\n");
            user.send(b"quit");
            user.expect(b"quit");
        }
    });
}

#[test]
fn a_service_that_refuses_is_told_to_the_user_at_once() {
    in_both_modes(|daemon| {
        let refusing = Service::echo().port;
        let mapping = daemon.add_public(1);
        let _agent = AgentProgram::new(daemon, &mapping, 0).exposing(refusing, 1).start();
        for _ in 0..3 {
            // It says nothing, and waits for no deadline.
            let start = Instant::now();
            // So soon that it may be reset before it has been told that it is connected.
            if let Ok(user) = daemon.dial(mapping.ports[1]).connect() {
                assert_ne!(user.expect_end(), End::Clean);
            }
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        }
        assert_eq!(authorized(daemon), 1.0);
    });
}

#[test]
fn the_service_may_be_told_where_a_user_comes_from() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let mapping = daemon.add_public(1);
        let (port, tls) = (mapping.ports[1], daemon.mode == Mode::Tls);
        for version in ["v1", "v2"] {
            let agent = AgentProgram::new(daemon, &mapping, 0).with(&["--proxy-protocol", version]);
            let mut agent = agent.exposing(service.port, 1).start();
            for is_named in [true, false] {
                let dial = daemon.dial(port);
                let dial = if is_named { dial } else { dial.without_server_name() };
                let user = dial.connect().expect("a connection");
                let from = user.local().port();
                if version == "v1" {
                    user.expect(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}\r\n").as_bytes());
                    continue;
                }
                let mut parts = Vec::new();
                if tls && is_named {
                    parts.extend(b"\x02\0\x09localhost");
                }
                if tls {
                    parts.extend(b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3");
                }
                let ends = [&[127, 0, 0, 1, 127, 0, 0, 1], &from.to_be_bytes()[..], &port.to_be_bytes()].concat();
                let length = [0, (ends.len() + parts.len()) as u8];
                user.expect(&[b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &ends, &parts].concat());
            }
            agent.terminate();
            wait_until("its place is free", PATIENCE, || daemon.controller().status(&mapping.id)["agents"] == 0);
        }
    });
}

#[test]
fn protocol_1_may_be_demanded() {
    in_both_modes(|daemon| {
        let (service, mapping) = (Service::downloads(), daemon.add(&public_mapping(4, 0)));
        let agent = AgentProgram::new(daemon, &mapping, 0).speaking(Version::One);
        let _agent = agent.exposing(service.port, 2).start();
        for seed in 0..4 {
            daemon.user(&mapping).download(seed, 1000);
        }
        assert!(authorized(daemon) >= 4.0, "a connection for each user");
    });
}

/// The echo of the local service in this session, which the agent is told of first.
#[track_caller]
fn serve(line: &Frames, session: u8) {
    line.send(OPEN, session, NOBODY);
    line.send(DATA, session, b"hello");
    line.expect_data(session, b"hello");
    line.send(FIN, session, b"");
    line.expect(FIN, session, b"");
}

#[test]
fn bye_is_answered_and_it_is_the_connector_that_closes() {
    for_both_modes(|mode| {
        let (connector, service) = (PlayedConnector::new(mode), Service::echo());
        let _agent = connector.agent().exposing(service.port, 1).spawn();
        let line = connector.framed();
        serve(&line, 1);
        line.send(BYE, 0, b"");
        line.expect(BYE, 0, b"");
        line.expect_silence();
        line.peer.finish();
        line.peer.expect_clean_end();
        // Within a session it is answered when that is over.
        let line = connector.framed();
        line.peer.send(&[frame(OPEN, 1, NOBODY), frame(BYE, 0, b""), frame(DATA, 1, b"hello")].concat());
        line.expect_data(1, b"hello");
        line.expect_silence();
        line.send(FIN, 1, b"");
        line.expect(FIN, 1, b"");
        line.expect(BYE, 0, b"");
        line.expect_silence();
        line.peer.finish();
        line.peer.expect_clean_end();
        serve(&connector.framed(), 1);
    });
}

#[test]
fn a_connector_that_says_bye_and_does_not_close_is_left_after_ten_seconds() {
    let (connector, service) = (PlayedConnector::new(Mode::Plain), Service::echo());
    let _agent = connector.agent().exposing(service.port, 1).spawn();
    let line = connector.framed();
    serve(&line, 1);
    line.send(BYE, 0, b"");
    line.expect(BYE, 0, b"");
    let start = Instant::now();
    line.peer.expect_clean_end();
    let waited = start.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    serve(&connector.framed(), 1);
}

/// Takes so many out of `lines`, on which the agent says BYE.
#[track_caller]
fn given_back(lines: &mut Vec<Frames>, count: usize) -> Vec<Frames> {
    let mut left = Vec::new();
    wait_until("connections are given back", PATIENCE, || {
        let mut at = 0;
        while at < lines.len() {
            match lines[at].hear(Duration::from_millis(100)) {
                None => at += 1,
                Some(said) => {
                    assert_eq!(said.kind, BYE, "{said:?}");
                    left.push(lines.remove(at));
                }
            }
        }
        left.len() >= count
    });
    assert_eq!(left.len(), count);
    left
}

#[test]
fn an_agent_that_calls_gives_back_what_its_clients_do_not_need_and_no_client_is_lost() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let connector = PlayedConnector::new(mode);
        // Its ports are for the agent's clients.
        let daemon = Setup::new(mode).prepare();
        let port = listening_port(&daemon);
        let _agent = faults.arm_agent(connector.agent().listening(port, 1)).spawn();
        let first = connector.framed();
        first.send(WANT, 0, &[0, 3]);
        let mut lines = vec![first, connector.framed(), connector.framed(), connector.framed()];
        assert!(connector.accept_within(Duration::from_millis(500)).is_none(), "more than were asked for");
        // One is in use all the time, one is kept.
        let client = Dial::new(port, None).connect().expect("a connection");
        let mut at = None;
        wait_until("the call has come", PATIENCE, || {
            at = lines.iter().position(|line| line.hear(Duration::from_millis(50)).is_some());
            at.is_some()
        });
        let used = lines.remove(at.expect("the line above"));
        used.send(ACCEPT, 1, b"");
        used.send(DATA, 1, b"welcome");
        client.expect(b"welcome");
        for _ in 0..2 {
            faults.pass(Duration::from_secs(61));
            client.send(b"still here");
            used.expect_data(1, b"still here");
        }
        let left = given_back(&mut lines, 2);
        // The next client is not given one of these, nor of those that are still to be closed.
        let next = Dial::new(port, None).connect().expect("a connection");
        lines[0].expect_open(1);
        lines[0].send(ACCEPT, 1, b"");
        lines[0].send(DATA, 1, b"welcome");
        next.expect(b"welcome");
        for line in left {
            line.send(BYE, 0, b"");
            line.expect_silence();
            line.peer.finish();
            line.peer.expect_clean_end();
        }
        assert!(connector.accept_within(Duration::from_millis(500)).is_none(), "none is needed");
    });
}

#[test]
fn connections_that_are_not_needed_any_more_are_given_back_and_no_user_is_lost() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let (connector, service) = (PlayedConnector::new(mode), Service::echo());
        let _agent = faults.arm_agent(connector.agent().exposing(service.port, 1)).spawn();
        let first = connector.framed();
        // A number, and what a later version may say behind it.
        first.send(WANT, 0, &[0, 2, 77]);
        let mut lines = vec![first, connector.framed(), connector.framed()];
        assert!(connector.accept_within(Duration::from_millis(500)).is_none(), "more than were asked for");
        lines.iter().for_each(Frames::expect_silence);
        faults.pass(Duration::from_secs(61));
        let left = given_back(&mut lines, 2);
        // An OPEN that was on its way is served.
        serve(&left[0], 1);
        for line in left {
            line.send(BYE, 0, b"");
            line.expect_silence();
            line.peer.finish();
            line.peer.expect_clean_end();
        }
        serve(&lines[0], 1);
        assert!(connector.accept_within(Duration::from_millis(500)).is_none(), "it is not needed");
    });
}

#[test]
fn no_frame_is_longer_than_was_agreed_on_not_even_one_that_is_skipped() {
    for_both_modes(|mode| {
        let (connector, service) = (PlayedConnector::new(mode), Service::echo());
        let _agent = connector.agent().exposing(service.port, 1).spawn();
        for (kind, flags, largest) in [(99, 0x80, 1024), (DATA, 77, 65_532)] {
            let line = connector.framed();
            line.peer.send(&frame(kind, flags, &vec![0; largest]));
            serve(&line, 1);
            // It is known by its header.
            line.peer.send(&frame(kind, flags, &vec![0; largest + 1])[..4]);
            line.peer.expect_end();
        }
    });
}

#[test]
fn what_is_no_frame_ends_the_connection_and_the_next_one_serves() {
    for_both_modes(|mode| {
        let service = Service::echo();
        for wrong in [
            frame(99, 0, b""),
            frame(OPEN, 2, NOBODY),
            frame(OPEN, 1, b"\x05\0"),
            frame(DATA, 0, b"nobody was opened"),
            frame(FIN, 0, b""),
            frame(ACCEPT, 0, b""),
            frame(ACCEPT, 1, b""),
            frame(WANT, 0, b"1"),
            [frame(OPEN, 1, NOBODY), frame(FIN, 1, b""), frame(DATA, 1, b"")].concat(),
            [frame(OPEN, 1, NOBODY), frame(OPEN, 2, NOBODY)].concat(),
        ] {
            // Each with an agent of its own: one that is let down again and again pauses.
            let connector = PlayedConnector::new(mode);
            let _agent = connector.agent().exposing(service.port, 1).spawn();
            let line = connector.framed();
            line.peer.send(&wrong);
            line.peer.expect_end_at_last(PATIENCE);
            serve(&connector.framed(), 1);
        }
    });
}

#[test]
fn what_follows_the_confirmed_end_of_a_session_ends_the_connection() {
    for_both_modes(|mode| {
        let (connector, service) = (PlayedConnector::new(mode), Service::echo());
        let refusing = PlayedConnector::new(mode);
        let _agents = [
            connector.agent().exposing(service.port, 1).spawn(),
            // Nobody listens there.
            refusing.agent().exposing(1, 1).spawn(),
        ];
        for late in [frame(DATA, 1, b"late"), frame(FIN, 1, b"")] {
            for is_broken_off_there in [true, false] {
                let line = if is_broken_off_there { refusing.framed() } else { connector.framed() };
                line.send(OPEN, 1, NOBODY);
                if is_broken_off_there {
                    assert_eq!(line.expect_besides_want(RESET, 1).payload, [2]);
                    line.send(DATA, 1, b"it has crossed the RESET");
                    line.send(RESET, 1, &[1]);
                } else {
                    line.send(DATA, 1, b"hello");
                    line.expect_data(1, b"hello");
                    line.send(RESET, 1, &[1]);
                    line.expect_besides_want(RESET, 1);
                }
                // Another RESET of it is nothing.
                line.peer.send(&[frame(RESET, 1, &[1]), frame(PING, 0, b"")].concat());
                line.expect(PONG, 0, b"");
                line.peer.send(&late);
                line.peer.expect_end();
            }
        }
    });
}

#[test]
fn a_call_that_the_connector_does_not_answer_is_taken_back() {
    for_both_modes(|mode| {
        let Some(faults) = Faults::new() else { return };
        let connector = PlayedConnector::new(mode);
        // Its ports are for the agent's clients.
        let daemon = Setup::new(mode).prepare();
        let port = listening_port(&daemon);
        let agent = faults.arm_agent(connector.agent().listening(port, 1)).spawn();
        let line = connector.framed();
        let client = |session| {
            let client = Dial::new(port, None).connect().expect("a connection");
            line.expect_open(session);
            client
        };
        let first = client(1);
        first.expect_silence();
        faults.pass(Duration::from_secs(14));
        first.expect_silence();
        faults.pass(Duration::from_secs(2));
        assert_eq!(line.expect_besides_want(RESET, 1).payload, [3]);
        assert_ne!(first.expect_end(), End::Clean);
        agent.wait_for("The Connector does not answer for the other end");
        // The answer has crossed that, and what followed it.
        for (kind, payload) in [(ACCEPT, &b""[..]), (DATA, b"welcome"), (RESET, &[1])] {
            line.send(kind, 1, payload);
        }
        let second = client(2);
        line.send(ACCEPT, 2, b"");
        line.send(DATA, 2, b"welcome");
        second.expect(b"welcome");
    });
}

#[test]
fn a_user_who_finds_no_free_connection_waits_for_a_round_trip_and_a_handshake_more() {
    // Long, so that a busy machine is not taken for another round trip.
    const ONE_WAY: Duration = Duration::from_millis(500);
    in_both_modes(|daemon| {
        let service = Service::start(|mut stream| {
            let _ = stream.write_all(b"220 ready");
            let _ = stream.read(&mut [0]);
        });
        let mapping = daemon.add_public(4);
        let distance = Distance::to(mapping.ports[0], ONE_WAY);
        let far = Mapping { ports: [distance.port, mapping.ports[1]], ..mapping.clone() };
        let agent = AgentProgram::new(daemon, &far, 0).exposing(service.port, 1).spawn();
        wait_until("it is free", PATIENCE, || daemon.controller().status(&mapping.id)["free"] == 1);
        let since = Instant::now();
        let users = [daemon.user(&mapping), daemon.user(&mapping)];
        // The service speaks first. The first one stays, so that its connection does not become free.
        let [first, second] = users.each_ref().map(|user| {
            user.expect(b"220 ready");
            since.elapsed()
        });
        // TCP's handshake takes a round trip, and that of TLS another one.
        let round_trips = if daemon.mode == Mode::Tls { 3 } else { 2 };
        let more = second.saturating_sub(first);
        println!("{:?}: {first:?}, and the second {more:?} later, of round trips of {:?}", daemon.mode, 2 * ONE_WAY);
        assert!(more < 2 * ONE_WAY * (round_trips + 1), "{more:?}\n{}", agent.log());
    });
}
