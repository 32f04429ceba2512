//! Version 2 of the pipe protocol, from an agent's side (docs/protocol.md, section 10).

use crate::harness::frames::{BYE, DATA, FIN, Frames, HELLO, OPEN, PING, PONG, RESET, WANT, frame};
use crate::harness::{
    AgentProgram, Daemon, End, Heard, Mode, PATIENCE, Payload, Peer, Service, Setup, in_both_modes, public_mapping,
    wait_until,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Ends both halves of a session in whose course nothing is left to be read.
#[track_caller]
fn end_session(agent: &Frames, user: &Peer, session: u8) {
    agent.send(FIN, session, b"");
    user.expect_clean_end();
    user.finish();
    agent.expect_besides_want(FIN, session);
}

#[test]
fn one_connection_serves_one_user_after_the_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        for session in 1..=130_u8 {
            let session = session % 128;
            let user = daemon.user(&mapping);
            agent.expect_open(session);
            agent.send(DATA, session, b"welcome");
            user.expect(b"welcome");
            user.send(b"hello");
            agent.expect_data(session, b"hello");
            end_session(&agent, &user, session);
        }
        assert_eq!(authorized(daemon), 1.0);
    });
}

#[test]
fn a_user_is_introduced_as_soon_as_it_has_connected() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        let open = agent.expect_open(1).payload;
        let tls = daemon.mode == Mode::Tls;
        let mut expected = vec![4, u8::from(tls), 127, 0, 0, 1];
        expected.extend(user.local().port().to_be_bytes());
        expected.extend([127, 0, 0, 1]);
        expected.extend(mapping.ports[1].to_be_bytes());
        if tls {
            expected.extend(b"\x01\x07TLSv1.3");
        }
        assert_eq!(open, expected);
    });
}

#[test]
fn either_side_may_end_its_half_before_the_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        user.send(b"question");
        user.finish();
        agent.expect_data(1, b"question");
        agent.expect_besides_want(FIN, 1);
        let answer = Payload::new(1).take(100_000);
        for piece in answer.chunks(10_000) {
            agent.send(DATA, 1, piece);
        }
        agent.send(FIN, 1, b"");
        assert_eq!(user.everything().len(), answer.len());

        let user = daemon.user(&mapping);
        agent.expect_open(2);
        agent.send(DATA, 2, b"I have said everything");
        agent.send(FIN, 2, b"");
        user.expect(b"I have said everything");
        user.expect_clean_end();
        let request = Payload::new(2).take(100_000);
        user.send(&request);
        user.finish();
        agent.expect_data(2, &request);
        agent.expect_besides_want(FIN, 2);
        let _third = daemon.user(&mapping);
        agent.expect_open(3);
    });
}

#[test]
fn what_comes_for_a_user_that_is_gone_reaches_nobody() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        user.send(b"question");
        agent.expect_data(1, b"question");
        user.reset();
        agent.expect_besides_want(RESET, 1);
        let next = daemon.user(&mapping);
        agent.send(DATA, 1, b"for the first one");
        agent.expect_silence();
        next.expect_silence();
        agent.send(RESET, 1, &[1]);
        agent.expect_open(2);
        // Whatever is said of the first session now is late.
        for (kind, payload) in [(DATA, &b"late"[..]), (FIN, b""), (RESET, &[1])] {
            agent.send(kind, 1, payload);
        }
        agent.send(DATA, 2, b"for the second one");
        next.expect(b"for the second one");
        end_session(&agent, &next, 2);
    });
}

#[test]
fn a_session_that_is_broken_off_does_not_look_complete() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        agent.send(DATA, 1, b"half an ans");
        agent.send(RESET, 1, &[1]);
        user.expect(b"half an ans");
        assert_ne!(user.expect_end(), End::Clean);
        agent.expect_besides_want(RESET, 1);
        let user = daemon.user(&mapping);
        agent.expect_open(2);
        agent.send(DATA, 2, b"half an ans");
        user.expect(b"half an ans");
        // An end of the connection that says all that TCP and TLS can say is no end of the session.
        agent.peer.finish();
        assert_ne!(user.expect_end(), End::Clean);
    });
}

#[test]
fn a_reset_behind_the_end_takes_nothing_from_it() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        let frames = [frame(DATA, 1, b"413 Too Large"), frame(FIN, 1, b""), frame(RESET, 1, &[1])];
        agent.peer.send(&frames.concat());
        user.expect(b"413 Too Large");
        user.expect_clean_end();
        agent.expect_besides_want(RESET, 1);
        let _next = daemon.user(&mapping);
        agent.expect_open(2);
    });
}

#[test]
fn frames_may_come_in_any_pieces_or_all_at_once() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        for session in 1..=2 {
            let user = daemon.user(&mapping);
            agent.expect_open(session);
            let frames = [
                frame(DATA, session, b"one "),
                frame(PING, 0, b""),
                frame(99, 0x80, b"whatever this may be"),
                frame(DATA, session, b""),
                frame(DATA, session, b"two "),
                frame(DATA, session, &[b'3'; 5000]),
                frame(FIN, session, b""),
            ];
            let pieces = if session == 1 { 1 } else { 16_000 };
            frames.concat().chunks(pieces).for_each(|piece| agent.peer.send(piece));
            let heard = user.everything();
            assert_eq!((&heard[..8], heard.len()), (&b"one two "[..], 5008));
            agent.expect_besides_want(PONG, 0);
            user.finish();
            agent.expect_besides_want(FIN, session);
        }
    });
}

#[test]
fn many_small_frames_in_one_record_are_one_stream() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        let small = Payload::new(5).take(50_000);
        let frames: Vec<u8> = small.iter().flat_map(|byte| frame(DATA, 1, &[*byte])).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                agent.peer.send(&frames);
                agent.send(FIN, 1, b"");
            });
            Payload::new(5).check(&user.everything());
        });
    });
}

#[test]
fn what_stands_before_an_illegal_frame_is_delivered() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        for is_complete in [true, false] {
            let agent = daemon.framed_agent(&mapping);
            let user = daemon.user(&mapping);
            agent.expect_open(1);
            let end = if is_complete { frame(FIN, 1, b"") } else { Vec::new() };
            agent.peer.send(&[frame(DATA, 1, b"before"), end, frame(99, 0, b"")].concat());
            user.expect(b"before");
            assert_eq!(user.expect_end() == End::Clean, is_complete);
            agent.peer.expect_end();
        }
    });
}

#[test]
fn what_is_no_frame_ends_the_connection_and_nothing_else() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(3);
        let well = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        well.expect_open(1);
        for wrong in [frame(99, 0, b""), frame(OPEN, 1, b"\0\0"), frame(DATA, 0, b"nobody asked"), frame(WANT, 0, b"1")]
        {
            let agent = daemon.framed_agent(&mapping);
            agent.peer.send(&wrong);
            agent.peer.expect_end();
        }
        well.send(DATA, 1, b"still here");
        user.expect(b"still here");
    });
}

#[test]
fn a_connection_that_will_not_be_used_again_is_closed() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        agent.send(BYE, 0, b"");
        agent.send(DATA, 1, b"to the end");
        user.expect(b"to the end");
        end_session(&agent, &user, 1);
        agent.expect_besides_want(BYE, 0);
        agent.peer.expect_end();
        let free = daemon.framed_agent(&mapping);
        free.send(BYE, 0, b"");
        free.expect_besides_want(BYE, 0);
        free.peer.expect_end();
        let both = [daemon.framed_agent(&mapping), daemon.framed_agent(&mapping)];
        both.iter().for_each(Frames::expect_silence);
    });
}

#[test]
fn more_connections_are_asked_for_as_they_are_needed_and_may_come() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(3);
        let agent = daemon.framed_agent(&mapping);
        let _first = daemon.user(&mapping);
        assert_eq!(agent.next().kind, OPEN);
        agent.expect(WANT, 0, &[0, 1]);
        let (second, third, _fourth) = (daemon.user(&mapping), daemon.user(&mapping), daemon.user(&mapping));
        // One is on its way, there is a place for one more, and none for the fourth.
        agent.expect(WANT, 0, &[0, 1]);
        agent.expect_silence();
        let agents = [daemon.framed_agent(&mapping), daemon.framed_agent(&mapping)];
        for (agent, user) in agents.iter().zip([&second, &third]) {
            agent.expect_open(1);
            agent.send(DATA, 1, b"yours");
            user.expect(b"yours");
        }
    });
}

#[test]
fn an_agent_that_says_no_hello_in_the_same_message_is_of_version_1() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let agent = daemon.stranger(&mapping, 0);
        let passcode = mapping.passcodes[0].as_bytes();
        let (head, tail) = passcode.split_at(17);
        agent.send(head);
        agent.send(tail);
        agent.expect_message(b"AUTHORIZED");
        let user = daemon.user(&mapping);
        agent.expect_silence();
        user.send(b"hello");
        agent.expect(b"hello");
        let nearly = daemon.stranger(&mapping, 0);
        nearly.send(&[passcode, &HELLO[..19]].concat());
        nearly.expect_message(b"AUTHORIZED");
        nearly.expect_silence();
    });
}

#[test]
fn agents_of_both_versions_serve_one_mapping() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let old = daemon.agent(&mapping);
        let new = daemon.framed_agent(&mapping);
        let silent = daemon.user(&mapping);
        new.expect_open(1);
        let second = daemon.user(&mapping);
        second.expect_silence();
        second.send(b"I begin");
        old.expect(b"I begin");
        new.send(DATA, 1, b"you need not");
        silent.expect(b"you need not");
        // One that comes when there is only an old agent left waits for a new one, until it says something.
        let third = daemon.user(&mapping);
        end_session(&new, &silent, 1);
        new.expect_open(2);
        new.send(DATA, 2, b"third");
        third.expect(b"third");
    });
}

#[test]
fn a_reset_that_is_not_answered_costs_the_connection() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let agent = daemon.framed_agent(&mapping);
    let user = daemon.user(&mapping);
    agent.expect_open(1);
    user.reset();
    agent.expect_besides_want(RESET, 1);
    let start = Instant::now();
    agent.peer.expect_end();
    let waited = start.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
}

#[test]
fn a_user_that_does_not_read_holds_its_own_agent_back_and_no_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let agents = [daemon.framed_agent(&mapping), daemon.framed_agent(&mapping)];
        let slow = daemon.dial(mapping.ports[1]).small_buffers().connect().expect("a connection");
        agents[0].expect_open(1);
        let mut sent = Payload::new(9);
        let mut frames = 0;
        while agents[0]
            .peer
            .send_within(&frame(DATA, 1, &Payload::new(frames).take(30_000)), Duration::from_millis(300))
        {
            frames += 1;
            assert!(frames < 2_000, "60 MB are on their way to who reads nothing");
        }
        let quick = daemon.user(&mapping);
        agents[1].expect_open(1);
        agents[1].send(DATA, 1, &sent.take(100_000)[..60_000]);
        assert_eq!(quick.expect_some().first(), Payload::new(9).take(1).first());
        thread::scope(|scope| {
            scope.spawn(|| {
                agents[0].peer.flush();
                agents[0].send(FIN, 1, b"");
            });
            assert_eq!(slow.everything().len(), 30_000 * (frames as usize + 1));
        });
    });
}

/// An agent and a daemon with one connection between them, and a service.
fn with_one_connection(daemon: &Daemon, service: &Service) -> (crate::harness::Mapping, AgentProgram) {
    let mapping = daemon.add_public(1);
    let agent = AgentProgram::new(daemon, &mapping, 0).exposing(service.port, 1).start();
    (mapping, agent)
}

/// How often an agent was authorized since the daemon has begun.
fn authorized(daemon: &Daemon) -> f64 {
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
fn a_user_may_break_off_at_any_byte() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let (mapping, _agent) = with_one_connection(daemon, &service);
        let request = Payload::new(3).take(300);
        let step = if daemon.mode == Mode::Plain { 1 } else { 7 };
        for cut in (0..request.len()).step_by(step) {
            let user = daemon.user(&mapping);
            if cut > 0 {
                user.send(&request[..cut]);
                assert!(request.starts_with(&user.expect_some()));
            }
            match cut % 3 {
                0 => user.reset(),
                1 => drop(user),
                _ => user.finish(),
            }
            let next = daemon.user(&mapping);
            next.send(b"next");
            next.finish();
            assert_eq!(next.everything(), b"next", "after {cut} bytes");
        }
        assert_eq!(authorized(daemon), 1.0);
    });
}

#[test]
fn a_service_may_break_off_at_any_byte() {
    in_both_modes(|daemon| {
        // Says as many bytes as it is told to, and then resets the connection; told 255 it ends properly.
        let service = Service::start(|mut stream| {
            let mut count = [0];
            if stream.read_exact(&mut count).is_err() {
                return;
            }
            let _ = stream.write_all(&Payload::new(4).take(count[0].into()));
            if count[0] < 255 {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        });
        let (mapping, _agent) = with_one_connection(daemon, &service);
        let whole = Payload::new(4).take(255);
        for cut in (0..255_u8).step_by(if daemon.mode == Mode::Plain { 1 } else { 6 }) {
            let user = daemon.user(&mapping);
            user.send(&[cut]);
            let mut heard = Vec::new();
            let end = loop {
                match user.hear(PATIENCE) {
                    Heard::Message(bytes) => heard.extend(bytes),
                    Heard::Ended(end) => break end,
                    Heard::Silence => panic!("no end"),
                }
            };
            assert!(whole.starts_with(&heard) && heard.len() <= cut.into(), "{} bytes of {cut}", heard.len());
            assert_ne!(end, End::Clean, "{cut}");
            let next = daemon.user(&mapping);
            next.send(&[255]);
            assert_eq!(next.everything(), whole, "after {cut} bytes");
        }
        assert_eq!(authorized(daemon), 1.0);
    });
}

#[test]
fn an_agent_may_be_cut_off_at_any_byte() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let frames = [frame(DATA, 1, b"first"), frame(PING, 0, b""), frame(DATA, 1, b"second"), frame(FIN, 1, b"")];
        let stream = frames.concat();
        for cut in 0..=stream.len() {
            let agent = daemon.framed_agent(&mapping);
            let user = daemon.user(&mapping);
            agent.expect_open(1);
            agent.peer.send(&stream[..cut]);
            if cut == stream.len() {
                user.expect(b"firstsecond");
                user.expect_clean_end();
            }
            if cut % 2 == 0 {
                agent.peer.finish()
            } else {
                agent.peer.reset()
            }
            if cut < stream.len() {
                let mut heard = Vec::new();
                let end = loop {
                    match user.hear(PATIENCE) {
                        Heard::Message(bytes) => heard.extend(bytes),
                        Heard::Ended(end) => break end,
                        Heard::Silence => panic!("no end"),
                    }
                };
                assert!(b"firstsecond".starts_with(&heard[..]));
                assert_ne!(end, End::Clean, "{cut}");
            }
        }
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
        let agent = AgentProgram::new(daemon, &mapping, 0).with(&["--proxy-protocol", "v1"]);
        let _agent = agent.exposing(service.port, 1).start();
        let user = daemon.user(&mapping);
        let (from, to) = (user.local().port(), mapping.ports[1]);
        user.expect(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").as_bytes());
    });
}

/// Reads once, as the original does.
fn read_once(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = [0; 100];
    let count = stream.read(&mut read).expect("a connection");
    read[..count].to_vec()
}

#[test]
fn a_connector_that_does_not_know_version_2_is_spoken_to_in_version_1() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let connector = listener.local_addr().expect("it is bound").to_string();
    let service = Service::echo();
    let agent = AgentProgram::bare("hush").with(&["--dev", "--connector", &connector, "--heartbeat", "0"]);
    let agent = agent.exposing(service.port, 1).spawn();
    // The original compares the whole of what it reads.
    let said = read_once(&mut listener.accept().expect("a connection").0);
    assert_eq!((said.len(), &said[..12]), (24, &b"hush\0iofog/2"[..]));
    assert_eq!(read_once(&mut listener.accept().expect("a connection").0), b"iofog/1 dev modehush");
    for _ in 0..2 {
        let mut line = listener.accept().expect("a connection").0;
        assert_eq!(read_once(&mut line), b"hush");
        line.write_all(b"AUTHORIZED").expect("a connection");
        agent.wait_for("Authorized by the Connector");
        line.write_all(b"hello").expect("a connection");
        assert_eq!(read_once(&mut line), b"hello");
    }
    assert_eq!(agent.log().matches("speaks version 1").count(), 1, "{}", agent.log());
    let warnings = agent.log().replace("[WARN] the passcode has 4 bytes", "");
    assert!(!warnings.contains("WARN"), "{warnings}");
}

#[test]
fn a_connector_that_says_no_hello_is_spoken_to_in_version_1() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let connector = listener.local_addr().expect("it is bound").to_string();
    let service = Service::echo();
    let agent = AgentProgram::bare("hush").with(&["--dev", "--connector", &connector, "--heartbeat", "0"]);
    let _agent = agent.exposing(service.port, 1).spawn();
    // One that lets it in all the same, and has a user at once, who says what looks like a hello.
    let mut line = listener.accept().expect("a connection").0;
    assert_eq!(read_once(&mut line).len(), 24);
    line.write_all(&[b"AUTHORIZED", &HELLO[..]].concat()).expect("a connection");
    let mut echo = [0; 20];
    line.read_exact(&mut echo).expect("the echo of the local service");
    assert_eq!(&echo, HELLO);
    drop(line);
    // One that lets it in and says nothing: the next connection says no hello.
    assert_eq!(read_once(&mut listener.accept().expect("a connection").0), b"iofog/1 dev modehush");
}

#[test]
fn protocol_1_may_be_demanded() {
    in_both_modes(|daemon| {
        let (service, mapping) = (Service::downloads(), daemon.add(&public_mapping(4, 0)));
        let agent = AgentProgram::new(daemon, &mapping, 0).with(&["--protocol", "1"]);
        let _agent = agent.exposing(service.port, 2).start();
        for seed in 0..4 {
            daemon.user(&mapping).download(seed, 1000);
        }
        assert!(authorized(daemon) >= 4.0, "a connection for each user");
    });
}
