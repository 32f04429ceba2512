//! Version 2 of the pipe protocol on private pipes, from both agents' sides (docs/protocol.md, section 10).

use crate::agent::listening_port;
use crate::harness::frames::{ACCEPT, BYE, DATA, FIN, Frames, OPEN, PING, PONG, RESET, WANT, frame};
use crate::harness::{
    AgentProgram, Daemon, Dial, End, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Service, Setup, in_both_modes,
    private_mapping, public_mapping, wait_until,
};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// What a caller tells of its client: 192.0.2.7, port 7, at 10.0.0.1, port 80.
const CLIENT: &[u8] = &[4, 0, 192, 0, 2, 7, 0, 7, 10, 0, 0, 1, 0, 80];
const CALL: &[u8] = b"iofog/1 tunnel ?";
const HERE: &[u8] = b"iofog/1 tunnel !";
const BEGIN: &[u8] = b"iofog/1 tunnel >";

/// Begins a session between the two.
#[track_caller]
fn call(caller: &Frames, server: &Frames, session: u8) {
    caller.send(OPEN, session, CLIENT);
    caller.expect_besides_want(ACCEPT, session);
    assert_eq!(server.expect_open(session).payload, CLIENT);
}

/// Payload goes both ways, and both halves end.
#[track_caller]
fn talk(caller: &Frames, server: &Frames, session: u8) {
    caller.send(DATA, session, b"question");
    server.expect_data(session, b"question");
    server.send(DATA, session, b"answer");
    caller.expect_data(session, b"answer");
    caller.send(FIN, session, b"");
    server.expect_besides_want(FIN, session);
    server.send(FIN, session, b"");
    caller.expect_besides_want(FIN, session);
}

#[test]
fn one_connection_of_each_side_serves_one_session_after_the_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        for side in [0, 1] {
            let (caller, server) = (daemon.caller(&mapping, side), daemon.server(&mapping, 1 - side));
            for session in 1..=130_u8 {
                call(&caller, &server, session % 128);
                talk(&caller, &server, session % 128);
            }
            for agent in [caller, server] {
                agent.send(BYE, 0, b"");
                agent.expect_besides_want(BYE, 0);
                agent.peer.expect_end();
            }
        }
        assert_eq!(authorized(daemon), 4.0);
    });
}

#[test]
fn either_side_may_end_its_half_before_the_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        let long = Payload::new(1).take(200_000);
        for (session, first, second) in [(1, &caller, &server), (2, &server, &caller)] {
            call(&caller, &server, session);
            first.send(DATA, session, b"all I have to say");
            first.send(FIN, session, b"");
            second.expect_data(session, b"all I have to say");
            second.expect_besides_want(FIN, session);
            for piece in long.chunks(10_000) {
                second.send(DATA, session, piece);
            }
            second.send(FIN, session, b"");
            first.expect_data(session, &long);
            first.expect_besides_want(FIN, session);
        }
    });
}

#[test]
fn a_session_that_either_side_breaks_off_leaves_both_connections_to_the_next() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        for (session, breaking, other) in [(1, &caller, &server), (2, &server, &caller)] {
            call(&caller, &server, session);
            breaking.send(DATA, session, b"half a mess");
            breaking.send(RESET, session, &[1]);
            other.expect_data(session, b"half a mess");
            other.expect_besides_want(RESET, session);
            breaking.expect_besides_want(RESET, session);
            other.send(DATA, session, b"on its way already");
            other.send(RESET, session, &[1]);
        }
        call(&caller, &server, 3);
        talk(&caller, &server, 3);
        assert_eq!(authorized(daemon), 2.0);
    });
}

#[test]
fn what_a_caller_tells_of_its_client_is_passed_on_as_far_as_it_is_understood() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        let (open, known) = ([&[4, 1], &CLIENT[2..]].concat(), b"\x01\x07TLSv1.2\x02\x09a.example");
        let told = [&open[..], b"\x63\x05later", known, b"\x64\0"].concat();
        for session in 1..=2 {
            caller.send(OPEN, session, &told);
            caller.expect_besides_want(ACCEPT, session);
            assert_eq!(server.expect_open(session).payload, [&open[..], known].concat());
            talk(&caller, &server, session);
        }
    });
}

#[test]
fn a_service_that_refuses_is_told_with_its_reason() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        for session in 1..4 {
            call(&caller, &server, session);
            server.send(RESET, session, &[2]);
            assert_eq!(caller.expect_besides_want(RESET, session).payload, [2]);
            caller.send(RESET, session, &[1]);
            server.expect_besides_want(RESET, session);
        }
    });
}

#[test]
fn an_agent_whose_service_refuses_says_so() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let refusing = Service::echo().port;
        let _agent = AgentProgram::new(daemon, &mapping, 1).exposing(refusing, 1).start();
        let caller = daemon.caller(&mapping, 0);
        caller.send(OPEN, 1, CLIENT);
        caller.expect_besides_want(ACCEPT, 1);
        assert_eq!(caller.expect_besides_want(RESET, 1).payload, [2]);
    });
}

#[test]
fn who_calls_waits_for_the_other_side_and_may_leave_meanwhile() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(3);
        let (first, second) = (daemon.caller(&mapping, 0), daemon.caller(&mapping, 0));
        first.send(OPEN, 1, CLIENT);
        first.expect_silence();
        second.send(OPEN, 1, b"\0\0");
        second.send(PING, 0, b"");
        second.expect(PONG, 0, b"");
        let status = daemon.controller().status(&mapping.id);
        assert_eq!(["agentsport1", "freeport1", "joined"].map(|key| &status[key]), [2, 0, 0], "they wait: {status}");
        first.send(RESET, 1, &[1]);
        first.expect_besides_want(RESET, 1);
        let server = daemon.server(&mapping, 1);
        assert_eq!(server.expect_open(1).payload, b"\0\0");
        second.expect_besides_want(ACCEPT, 1);
        talk(&second, &server, 1);
        // The one that left may come again.
        first.send(OPEN, 2, CLIENT);
        first.expect_besides_want(ACCEPT, 2);
        server.expect_open(2);
        talk_as(&first, 2, &server, 2);
    });
}

#[track_caller]
fn talk_as(caller: &Frames, one: u8, server: &Frames, other: u8) {
    caller.send(DATA, one, b"question");
    server.expect_data(other, b"question");
    server.send(DATA, other, b"answer");
    caller.expect_data(one, b"answer");
}

#[test]
fn who_calls_a_side_where_nobody_comes_is_told_so() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_private(1);
    let caller = daemon.caller(&mapping, 0);
    let start = Instant::now();
    caller.send(OPEN, 1, CLIENT);
    let told = caller.hear(Duration::from_secs(15)).expect("an answer");
    assert_eq!((told.kind, told.flags, told.payload), (RESET, 1, vec![5]));
    wait_until("the log says so", PATIENCE, || daemon.log().contains("no agent was free for agent 127.0.0.1"));
    assert!(start.elapsed() > Duration::from_secs(8), "{:?}", start.elapsed());
    caller.send(RESET, 1, &[1]);
    let server = daemon.server(&mapping, 1);
    caller.send(OPEN, 2, CLIENT);
    caller.expect_besides_want(ACCEPT, 2);
    server.expect_open(1);
    talk_as(&caller, 2, &server, 1);
}

#[test]
fn a_wrong_frame_ends_its_own_connection_and_no_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        call(&caller, &server, 1);
        let open = frame(OPEN, 1, CLIENT);
        for wrong in [
            frame(99, 0, b""),
            frame(OPEN, 2, CLIENT),
            frame(OPEN, 1, b"\x07\0"),
            frame(ACCEPT, 0, b""),
            [&open[..], &frame(DATA, 1, b"too soon")].concat(),
            [&open[..], &frame(FIN, 1, b"")].concat(),
            [&open[..], &frame(ACCEPT, 1, b"")].concat(),
            [&open[..], &open].concat(),
            frame(WANT, 0, &[0, 1]),
            // Behind a call that is taken back.
            [&open[..], &frame(RESET, 1, &[1]), &frame(DATA, 1, b"too late")].concat(),
            [&open[..], &frame(RESET, 1, &[1]), &frame(OPEN, 2, CLIENT)].concat(),
            [&open[..], &frame(RESET, 1, &[1]), &frame(99, 0, b"")].concat(),
            // Of a session that there is not.
            frame(ACCEPT, 7, b""),
        ] {
            let other = daemon.caller(&mapping, 0);
            other.peer.send(&wrong);
            other.peer.expect_end();
        }
        for wrong in [frame(OPEN, 1, CLIENT), frame(ACCEPT, 0, b""), frame(ACCEPT, 7, b"")] {
            let other = daemon.server(&mapping, 1);
            other.peer.send(&wrong);
            other.peer.expect_end();
        }
        talk(&caller, &server, 1);
    });
}

#[test]
fn a_connection_that_fails_breaks_its_session_off_and_the_partner_serves_the_next() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let caller = daemon.caller(&mapping, 0);
        let server = daemon.server(&mapping, 1);
        call(&caller, &server, 1);
        server.send(DATA, 1, b"half an ans");
        caller.expect_data(1, b"half an ans");
        // An end of the connection that says all that TCP and TLS can say is no end of the session.
        server.peer.finish();
        caller.expect_besides_want(RESET, 1);
        caller.send(RESET, 1, &[1]);
        let server = daemon.server(&mapping, 1);
        caller.send(OPEN, 2, CLIENT);
        caller.expect_besides_want(ACCEPT, 2);
        server.expect_open(1);
        caller.peer.reset();
        server.expect_besides_want(RESET, 1);
        server.send(RESET, 1, &[1]);
        let caller = daemon.caller(&mapping, 0);
        caller.send(OPEN, 1, CLIENT);
        caller.expect_besides_want(ACCEPT, 1);
        server.expect_open(2);
        talk_as(&caller, 1, &server, 2);
    });
}

#[test]
fn payload_may_be_anything() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        call(&caller, &server, 1);
        for word in [&b"BEAT"[..], b"BEATBEAT", b"DATA", CALL, HERE, BEGIN, b"AUTHORIZED"] {
            caller.send(DATA, 1, word);
            server.expect_data(1, word);
            server.send(DATA, 1, word);
            caller.expect_data(1, word);
        }
    });
}

#[test]
fn both_sides_are_asked_for_connections_as_they_are_needed() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(4);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        caller.send(OPEN, 1, CLIENT);
        caller.expect(ACCEPT, 1, b"");
        assert_eq!(server.next().kind, OPEN);
        // One that serves for who comes next; of those that call, twice as many.
        server.expect(WANT, 0, &[0, 1]);
        caller.expect(WANT, 0, &[0, 1]);
        let callers = [daemon.caller(&mapping, 0), daemon.caller(&mapping, 0)];
        let more = daemon.server(&mapping, 1);
        callers[0].send(OPEN, 1, CLIENT);
        callers[0].expect_besides_want(ACCEPT, 1);
        more.expect_open(1);
        more.expect(WANT, 0, &[0, 1]);
        callers[1].send(OPEN, 1, CLIENT);
        callers[1].expect_silence();
        let last = daemon.server(&mapping, 1);
        last.expect_open(1);
        callers[1].expect(ACCEPT, 1, b"");
    });
}

#[test]
fn an_agent_of_version_1_reaches_one_that_serves_with_its_first_payload() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let server = daemon.server(&mapping, 1);
        let old = daemon.agent_on(&mapping, 0);
        old.send(b"BEAT");
        old.expect_message(b"BEAT");
        server.expect_silence();
        old.send(b"hello");
        assert_eq!(server.expect_open(1).payload, b"\0\0");
        server.expect_data(1, b"hello");
        server.send(DATA, 1, b"hello yourself");
        old.expect(b"hello yourself");
        old.finish();
        server.expect_besides_want(FIN, 1);
        server.expect_besides_want(RESET, 1);
        server.send(RESET, 1, &[1]);
        old.expect_end();

        let old = daemon.agent_on(&mapping, 0);
        old.send(&Payload::new(3).take(40_000));
        server.expect_open(2);
        server.expect_data(2, &Payload::new(3).take(40_000));
        server.send(DATA, 2, b"bye");
        server.send(FIN, 2, b"");
        old.expect(b"bye");
        old.expect_clean_end();
        server.expect_besides_want(FIN, 2);

        let old = daemon.agent_on(&mapping, 0);
        old.send(b"hello");
        server.expect_open(3);
        server.expect_data(3, b"hello");
        server.send(DATA, 3, b"half an ans");
        server.send(RESET, 3, &[1]);
        old.expect(b"half an ans");
        assert_ne!(old.expect_end(), End::Clean);
    });
}

#[test]
fn a_tunnel_of_version_1_reaches_one_that_serves() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let server = daemon.server(&mapping, 1);
        let old = daemon.agent_on(&mapping, 0);
        old.send(CALL);
        old.expect(HERE);
        server.expect_open(1);
        // A service that speaks first.
        server.send(DATA, 1, b"220 ready");
        old.expect_silence();
        old.send(CALL); // it was repeated before the answer arrived
        if daemon.mode == Mode::Tls {
            old.send(b"BEAT");
            old.expect_message(b"BEAT");
        }
        old.send(BEGIN);
        old.expect(b"220 ready");
        old.send(b"quit");
        server.expect_data(1, b"quit");
    });
}

#[test]
fn who_calls_reaches_the_end_of_a_tunnel_of_version_1() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let caller = daemon.caller(&mapping, 0);
        let old = daemon.agent_on(&mapping, 1);
        caller.send(OPEN, 1, CLIENT);
        old.expect(CALL);
        caller.expect_silence();
        old.send(HERE);
        old.expect(BEGIN);
        caller.expect_besides_want(ACCEPT, 1);
        old.send(b"220 ready");
        caller.expect_data(1, b"220 ready");
        caller.send(DATA, 1, b"the whole question");
        // Of this an agent of version 1 learns nothing, and may answer all the same.
        caller.send(FIN, 1, b"");
        old.expect(b"the whole question");
        old.send(b"the whole answer");
        caller.expect_data(1, b"the whole answer");
        old.finish();
        caller.expect_besides_want(FIN, 1);
        old.expect_end();

        // One that cannot reach its service closes without a word.
        let old = daemon.agent_on(&mapping, 1);
        caller.send(OPEN, 2, CLIENT);
        old.expect(CALL);
        old.finish();
        caller.expect_besides_want(RESET, 2);
        caller.send(RESET, 2, &[1]);

        // What is no end of a tunnel is not served.
        let old = daemon.agent_on(&mapping, 1);
        caller.send(OPEN, 3, CLIENT);
        old.expect(CALL);
        old.send(b"what is that to be?");
        caller.expect_besides_want(RESET, 3);
        caller.send(RESET, 3, &[1]);
        old.expect_end();

        // Who leaves before the answer takes its partner along.
        let old = daemon.agent_on(&mapping, 1);
        caller.send(OPEN, 4, CLIENT);
        old.expect(CALL);
        caller.send(RESET, 4, &[1]);
        caller.expect_besides_want(RESET, 4);
        assert_ne!(old.expect_end(), End::Clean);
    });
}

#[test]
fn agents_of_version_1_are_joined_to_each_other_first() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
        left.send(b"to the right");
        right.expect(b"to the right");
        call(&caller, &server, 1);
        talk(&caller, &server, 1);
        right.send(b"to the left");
        left.expect(b"to the left");
    });
}

#[test]
fn who_calls_is_joined_to_version_2_where_there_is_a_choice() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let old = daemon.agent_on(&mapping, 1);
        let server = daemon.server(&mapping, 1);
        let caller = daemon.caller(&mapping, 0);
        call(&caller, &server, 1);
        talk(&caller, &server, 1);
        old.expect_silence();
    });
}

#[test]
fn heartbeats_are_answered_whatever_a_connection_is_doing() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        let answered = |agents: &[&Frames]| {
            for agent in agents {
                agent.send(PING, 0, b"");
                agent.expect_besides_want(PONG, 0);
            }
        };
        answered(&[&caller, &server]);
        call(&caller, &server, 1);
        answered(&[&caller, &server]);
        caller.send(FIN, 1, b"");
        server.expect_besides_want(FIN, 1);
        answered(&[&caller, &server]);
        server.send(FIN, 1, b"");
        caller.expect_besides_want(FIN, 1);
        call(&caller, &server, 2);
        caller.send(RESET, 2, &[1]);
        caller.expect_besides_want(RESET, 2);
        // The other one has not confirmed that yet.
        server.expect_besides_want(RESET, 2);
        answered(&[&caller, &server]);
        caller.send(OPEN, 3, CLIENT);
        answered(&[&caller]);
    });
}

#[test]
fn who_does_not_read_holds_its_own_partner_back_and_no_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let callers = [daemon.caller(&mapping, 0), daemon.caller(&mapping, 0)];
        let servers = [daemon.server(&mapping, 1), daemon.server(&mapping, 1)];
        callers.iter().zip(&servers).for_each(|(caller, server)| call(caller, server, 1));
        let mut frames = 0;
        let piece = |number: u64| frame(DATA, 1, &Payload::new(number).take(30_000));
        while servers[0].peer.send_within(&piece(frames), Duration::from_millis(300)) {
            frames += 1;
            assert!(frames < 2_000, "60 MB are on their way to who reads nothing");
        }
        servers[1].send(DATA, 1, b"not held back");
        callers[1].expect_data(1, b"not held back");
        std::thread::scope(|scope| {
            scope.spawn(|| servers[0].peer.flush());
            for number in 0..=frames {
                callers[0].expect_data(1, &Payload::new(number).take(30_000));
            }
        });
    });
}

#[test]
fn a_mapping_that_is_removed_does_not_look_like_an_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let (caller, server) = (daemon.caller(&mapping, 0), daemon.server(&mapping, 1));
        let waiting = daemon.caller(&mapping, 0);
        call(&caller, &server, 1);
        waiting.send(OPEN, 1, CLIENT);
        waiting.expect_silence();
        daemon.controller().remove(&mapping);
        for agent in [&caller, &server, &waiting] {
            let mut heard = Vec::new();
            while let Heard::Message(bytes) = agent.peer.hear(PATIENCE) {
                heard.extend(bytes);
            }
            assert!(!heard.windows(4).any(|bytes| bytes == frame(FIN, 1, b"")), "{heard:?}");
        }
    });
}

#[test]
fn payload_that_looks_like_a_heartbeat_reaches_version_1_in_pieces() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_private(1);
    let (server, old) = (daemon.server(&mapping, 1), daemon.agent_on(&mapping, 0));
    old.send(b"hello");
    server.expect_open(1);
    server.expect_data(1, b"hello");
    server.send(DATA, 1, b"BEAT");
    old.expect_message(b"BE");
    old.expect_message(b"AT");
    old.send(b"BEAT");
    old.expect_message(b"BEAT");
    old.send(b"BE");
    server.expect_data(1, b"BE");
}

/// For how long its connections were free is nothing to it.
#[test]
fn a_session_is_idle_from_its_beginning() {
    let daemon = Setup::new(Mode::Plain).start();
    let long = Duration::from_secs(3);
    let mapping = |kind: &str, more: serde_json::Value| {
        let mut mapping = if kind == "public" { public_mapping(2, 0) } else { private_mapping(2, 0) };
        mapping["idletimeout"] = more;
        daemon.add(&mapping)
    };
    let [public, private] = ["public", "private"].map(|kind| mapping(kind, 2.into()));
    let (agent, left) = (daemon.framed_agent(&public), daemon.agent_on(&private, 0));
    let server = daemon.server(&private, 1);
    assert!(agent.hear(long).is_none());
    let (user, right) = (daemon.user(&public), daemon.agent_on(&private, 1));
    let caller = daemon.caller(&private, 0);
    agent.expect_open(1);
    call(&caller, &server, 1);
    assert!(caller.hear(Duration::from_millis(1_300)).is_none_or(|frame| frame.kind == WANT));
    agent.send(DATA, 1, b"still here");
    user.expect(b"still here");
    left.send(b"to the right");
    right.expect(b"to the right");
    talk_as(&caller, 1, &server, 1);
}

/// It would be repeated after half a second only.
#[test]
fn a_call_of_version_1_that_came_too_soon_is_passed_on() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_private(1);
    for _ in 0..2 {
        let left = daemon.agent_on(&mapping, 0);
        left.send(CALL);
        left.send(b"BEAT");
        left.expect_message(b"BEAT");
        let right = daemon.agent_on(&mapping, 1);
        right.expect(CALL);
        right.send(HERE);
        left.expect(HERE);
        // The next two come with leftovers, as far as anybody knows.
        right.send(&[b'x'; 10_000]);
        left.reset();
        right.expect_end();
    }
}

/// Both ends of a tunnel with one connection each, in this mapping of one.
fn tunnel(daemon: &Daemon, service: &Service) -> (Mapping, [AgentProgram; 2]) {
    let mapping = daemon.add_private(1);
    let exposing = AgentProgram::new(daemon, &mapping, 1).exposing(service.port, 1).start();
    let listening = AgentProgram::new(daemon, &mapping, 0).listening(listening_port(daemon), 1).start();
    (mapping, [exposing, listening])
}

/// A client of the listening end.
#[track_caller]
fn client(daemon: &Daemon) -> Peer {
    Dial::new(listening_port(daemon), None).connect().expect("a connection to the listening end")
}

/// How often an agent was authorized since the daemon has begun.
fn authorized(daemon: &Daemon) -> f64 {
    daemon.controller().metrics().get("agents_authorized_total")
}

#[test]
fn a_thousand_clients_follow_each_other_on_one_connection() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let (_mapping, ends) = tunnel(daemon, &service);
        let memory = |daemon: &Daemon| daemon.resident_kib() + ends.iter().map(AgentProgram::resident_kib).sum::<u64>();
        let mut before = 0;
        for session in 0..1_000 {
            if session == 100 {
                before = memory(daemon);
            }
            let client = client(daemon);
            let length = 1 + session as usize * 7 % 3_000;
            client.send(&Payload::new(session).take(length));
            client.finish();
            let echo = client.everything();
            assert_eq!(echo.len(), length, "session {session}");
            Payload::new(session).check(&echo);
        }
        assert_eq!(authorized(daemon), 2.0, "one connection of each end for all of them");
        let now = memory(daemon);
        assert!(now < before + 768, "{before} KiB became {now}");
    });
}

#[test]
fn a_client_may_break_off_at_any_byte() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let _tunnel = tunnel(daemon, &service);
        let request = Payload::new(3).take(300);
        for cut in (0..request.len()).step_by(7) {
            let broken = client(daemon);
            if cut > 0 {
                broken.send(&request[..cut]);
                assert!(request.starts_with(&broken.expect_some()));
            }
            match cut % 3 {
                0 => broken.reset(),
                1 => drop(broken),
                _ => broken.finish(),
            }
            let next = client(daemon);
            next.send(b"next");
            next.finish();
            assert_eq!(next.everything(), b"next", "after {cut} bytes");
        }
        assert_eq!(authorized(daemon), 2.0);
    });
}

#[test]
fn a_service_that_refuses_is_told_to_the_client_at_once() {
    in_both_modes(|daemon| {
        let mut service = Service::echo();
        service.stop();
        let _tunnel = tunnel(daemon, &service);
        for _ in 0..3 {
            let start = Instant::now();
            let client = client(daemon);
            assert_ne!(client.expect_end(), End::Clean);
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        }
        assert_eq!(authorized(daemon), 2.0);
    });
}

#[test]
fn a_service_that_speaks_first_is_heard_whatever_the_ends_speak() {
    in_both_modes(|daemon| {
        let service = Service::start(|mut stream| {
            let _ = stream.write_all(b"220 ready\r\n");
            let _ = std::io::copy(&mut &stream, &mut &stream);
        });
        for [exposing, listening] in [["2", "2"], ["1", "2"], ["2", "1"]] {
            let mapping = daemon.add_private(4);
            let exposing = AgentProgram::new(daemon, &mapping, 1).with(&["--protocol", exposing]);
            let listening = AgentProgram::new(daemon, &mapping, 0).with(&["--protocol", listening]);
            let _ends =
                [exposing.exposing(service.port, 2).start(), listening.listening(listening_port(daemon), 2).start()];
            let clients: Vec<Peer> = (0..2).map(|_| client(daemon)).collect();
            for client in &clients {
                client.expect(b"220 ready\r\n");
                client.send(b"quit");
                client.expect(b"quit");
            }
        }
    });
}

#[test]
fn the_end_of_an_answer_is_not_taken_from_an_agent_that_is_killed() {
    in_both_modes(|daemon| {
        let service = Service::start(|mut stream| {
            let _ = stream.write_all(b"half an ans");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let (_mapping, mut ends) = tunnel(daemon, &service);
        let client = client(daemon);
        client.expect(b"half an ans");
        ends[0].kill();
        assert_ne!(client.expect_end(), End::Clean);
    });
}

#[test]
fn the_service_may_be_told_where_a_client_comes_from() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let mapping = daemon.add_private(1);
        let exposing = AgentProgram::new(daemon, &mapping, 1).with(&["--proxy-protocol", "v1"]);
        let _exposing = exposing.exposing(service.port, 1).start();
        let _listening = AgentProgram::new(daemon, &mapping, 0).listening(listening_port(daemon), 1).start();
        let client = client(daemon);
        let (from, to) = (client.local().port(), listening_port(daemon));
        client.expect(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").as_bytes());
    });
}

#[test]
fn the_listening_end_gets_connections_for_all_its_clients() {
    in_both_modes(|daemon| {
        let service = Service::echo();
        let mapping = daemon.add_private(12);
        let _exposing = AgentProgram::new(daemon, &mapping, 1).exposing(service.port, 1).start();
        let _listening = AgentProgram::new(daemon, &mapping, 0).listening(listening_port(daemon), 1).start();
        let clients: Vec<Peer> = (0..12).map(|_| client(daemon)).collect();
        for client in &clients {
            client.send(b"hello");
        }
        for client in &clients {
            client.expect(b"hello");
        }
        let status = || daemon.controller().status(&mapping.id);
        wait_until("all are joined", PATIENCE, || status()["joined"] == 12);
    });
}

#[test]
fn the_listening_end_says_so_where_nobody_can_listen() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let agent = AgentProgram::new(&daemon, &mapping, 0).listening(listening_port(&daemon), 1).spawn();
    agent.wait_for("--listen needs a private one");
}
