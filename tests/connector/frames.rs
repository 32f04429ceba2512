//! Version 2 of the pipe protocol, from an agent's side (docs/protocol.md, section 10).

use crate::harness::frames::{
    BYE, DATA, FIN, FramedPipe, Frames, HELLO, OPEN, PING, PONG, RESET, WANT, frame, with_framed_agent,
};
use crate::harness::{
    Daemon, End, Heard, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, in_both_modes, public_mapping, wait_until,
};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn one_connection_serves_one_user_after_the_other() {
    with_framed_agent(1, |pipe| {
        for session in 1..=130_u8 {
            let session = session % 128;
            let user = pipe.user(session);
            pipe.agent.send(DATA, session, b"welcome");
            user.expect(b"welcome");
            user.send(b"hello");
            pipe.agent.expect_data(session, b"hello");
            pipe.end(&user, session);
        }
        assert_eq!(pipe.daemon.controller().metrics().get("agents_authorized_total"), 1.0);
    });
}

#[test]
fn a_user_is_introduced_as_soon_as_it_has_connected() {
    with_framed_agent(1, |pipe| {
        let (port, tls) = (pipe.mapping.ports[1], pipe.daemon.mode == Mode::Tls);
        let dial = pipe.daemon.dial(port);
        // The second one resumes the TLS session of the first.
        for (session, dial) in [(1, dial.clone()), (2, dial.clone()), (3, dial.without_server_name())] {
            let user = dial.connect().expect("a connection");
            let open = pipe.agent.expect_open(session).payload;
            let mut expected = vec![4, u8::from(tls), 127, 0, 0, 1];
            expected.extend(user.local().port().to_be_bytes());
            expected.extend([127, 0, 0, 1]);
            expected.extend(port.to_be_bytes());
            if tls {
                expected.extend(b"\x01\x07TLSv1.3");
            }
            if tls && session < 3 {
                expected.extend(b"\x02\x09localhost");
            }
            assert_eq!(open, expected);
            pipe.end(&user, session);
        }
    });
}

#[test]
fn either_side_may_end_its_half_before_the_other() {
    with_framed_agent(1, |pipe| {
        let (agent, user) = (&pipe.agent, pipe.user(1));
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

        let user = pipe.user(2);
        agent.send(DATA, 2, b"I have said everything");
        agent.send(FIN, 2, b"");
        user.expect(b"I have said everything");
        user.expect_clean_end();
        let request = Payload::new(2).take(100_000);
        user.send(&request);
        user.finish();
        agent.expect_data(2, &request);
        agent.expect_besides_want(FIN, 2);
        let _third = pipe.user(3);
    });
}

#[test]
fn what_comes_for_a_user_that_is_gone_reaches_nobody() {
    with_framed_agent(1, |pipe| {
        let (agent, user) = (&pipe.agent, pipe.user(1));
        user.send(b"question");
        agent.expect_data(1, b"question");
        user.reset();
        agent.expect_besides_want(RESET, 1);
        let next = pipe.daemon.user(&pipe.mapping);
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
        pipe.end(&next, 2);
    });
}

#[test]
fn who_has_not_confirmed_the_end_of_its_session_is_neither_joined_nor_free() {
    with_framed_agent(1, |pipe| {
        let counts = |expected: [u64; 4]| {
            wait_until(&format!("the status says {expected:?}"), PATIENCE, || {
                ["all", &pipe.mapping.id].iter().all(|id| {
                    let status = pipe.daemon.controller().status(id);
                    ["agents", "free", "joined", "users"].map(|key| status[key].as_u64()) == expected.map(Some)
                })
            });
        };
        counts([1, 1, 0, 0]);
        let user = pipe.user(1);
        counts([1, 0, 1, 1]);
        user.reset();
        pipe.agent.expect_besides_want(RESET, 1);
        counts([1, 0, 0, 0]);
        pipe.agent.send(RESET, 1, &[1]);
        counts([1, 1, 0, 0]);
        // One that goes is counted no longer, whatever it was doing.
        let _user = pipe.user(2);
        counts([1, 0, 1, 1]);
        pipe.agent.peer.abort();
        counts([0, 0, 0, 0]);
    });
}

#[test]
fn what_follows_the_confirmed_end_of_a_session_ends_the_connection() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        for late in [frame(DATA, 1, b"late"), frame(FIN, 1, b"")] {
            for is_broken_off_here in [true, false] {
                let pipe = FramedPipe::of(daemon, mapping.clone());
                let (agent, user) = (&pipe.agent, pipe.user(1));
                if is_broken_off_here {
                    user.reset();
                    agent.expect_besides_want(RESET, 1);
                    agent.send(DATA, 1, b"it has crossed the RESET");
                    agent.send(RESET, 1, &[1]);
                } else {
                    agent.send(RESET, 1, &[1]);
                    agent.expect_besides_want(RESET, 1);
                    user.expect_end();
                }
                // Another RESET of it is nothing.
                agent.peer.send(&[frame(RESET, 1, &[1]), frame(PING, 0, b"")].concat());
                agent.expect_besides_want(PONG, 0);
                agent.peer.send(&late);
                agent.peer.expect_end();
            }
        }
    });
}

#[test]
fn a_session_that_is_broken_off_does_not_look_complete() {
    with_framed_agent(1, |pipe| {
        let (agent, user) = (&pipe.agent, pipe.user(1));
        agent.send(DATA, 1, b"half an ans");
        agent.send(RESET, 1, &[1]);
        user.expect(b"half an ans");
        assert_ne!(user.expect_end(), End::Clean);
        agent.expect_besides_want(RESET, 1);
        let user = pipe.user(2);
        agent.send(DATA, 2, b"half an ans");
        user.expect(b"half an ans");
        // An end of the connection that says all that TCP and TLS can say is no end of the session.
        agent.peer.finish();
        assert_ne!(user.expect_end(), End::Clean);
    });
}

#[test]
fn a_reset_behind_the_end_takes_nothing_from_it() {
    with_framed_agent(1, |pipe| {
        let user = pipe.user(1);
        let frames = [frame(DATA, 1, b"413 Too Large"), frame(FIN, 1, b""), frame(RESET, 1, &[1])];
        pipe.agent.peer.send(&frames.concat());
        user.expect(b"413 Too Large");
        user.expect_clean_end();
        pipe.agent.expect_besides_want(RESET, 1);
        let _next = pipe.user(2);
    });
}

#[test]
fn frames_may_come_in_any_pieces_or_all_at_once() {
    with_framed_agent(1, |pipe| {
        for session in 1..=2 {
            let user = pipe.user(session);
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
            frames.concat().chunks(pieces).for_each(|piece| pipe.agent.peer.send(piece));
            let heard = user.everything();
            assert_eq!((&heard[..8], heard.len()), (&b"one two "[..], 5008));
            pipe.agent.expect_besides_want(PONG, 0);
            user.finish();
            pipe.agent.expect_besides_want(FIN, session);
        }
    });
}

#[test]
fn many_small_frames_in_one_record_are_one_stream() {
    with_framed_agent(1, |pipe| {
        let (agent, user) = (&pipe.agent, pipe.user(1));
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
            let pipe = FramedPipe::of(daemon, mapping.clone());
            let user = pipe.user(1);
            let end = if is_complete { frame(FIN, 1, b"") } else { Vec::new() };
            pipe.agent.peer.send(&[frame(DATA, 1, b"before"), end, frame(99, 0, b"")].concat());
            user.expect(b"before");
            assert_eq!(user.expect_end() == End::Clean, is_complete);
            pipe.agent.peer.expect_end();
        }
    });
}

#[test]
fn what_is_no_frame_ends_the_connection_and_nothing_else() {
    with_framed_agent(3, |pipe| {
        let user = pipe.user(1);
        for wrong in [
            frame(99, 0, b""),
            frame(OPEN, 1, b"\0\0"),
            frame(DATA, 0, b"nobody asked"),
            frame(WANT, 0, b"1"),
            frame(WANT, 0, &[0, 1]),
            frame(FIN, 0, b""),
            frame(FIN, 77, &[0; 1025]),
            frame(RESET, 77, b""),
        ] {
            let other = pipe.daemon.framed_agent(&pipe.mapping);
            other.peer.send(&wrong);
            other.peer.expect_end();
        }
        pipe.agent.send(DATA, 1, b"still here");
        user.expect(b"still here");
    });
}

#[test]
fn no_frame_is_longer_than_was_agreed_on_not_even_one_that_is_skipped() {
    with_framed_agent(2, |pipe| {
        let user = pipe.user(1);
        for (kind, flags, largest) in [(99, 0x80, 1024), (DATA, 77, 65_532)] {
            pipe.agent.peer.send(&frame(kind, flags, &vec![0; largest]));
            pipe.agent.send(DATA, 1, b"behind it");
            user.expect(b"behind it");
            let other = pipe.daemon.framed_agent(&pipe.mapping);
            // It is known by its header.
            other.peer.send(&frame(kind, flags, &vec![0; largest + 1])[..4]);
            other.peer.expect_end();
        }
    });
}

#[test]
fn a_connection_that_will_not_be_used_again_is_closed() {
    with_framed_agent(2, |pipe| {
        let (agent, user) = (&pipe.agent, pipe.user(1));
        agent.send(BYE, 0, b"");
        agent.send(DATA, 1, b"to the end");
        user.expect(b"to the end");
        pipe.end(&user, 1);
        agent.expect_besides_want(BYE, 0);
        agent.peer.expect_end();
        let another = || pipe.daemon.framed_agent(&pipe.mapping);
        let free = another();
        free.send(BYE, 0, b"");
        free.expect_besides_want(BYE, 0);
        free.peer.expect_end();
        [another(), another()].iter().for_each(Frames::expect_silence);
    });
}

#[test]
fn more_connections_are_asked_for_as_they_are_needed_and_may_come() {
    with_framed_agent(3, |FramedPipe { daemon, mapping, agent }| {
        let _first = daemon.user(mapping);
        assert_eq!(agent.next().kind, OPEN);
        agent.expect(WANT, 0, &[0, 1]);
        let (second, third, _fourth) = (daemon.user(mapping), daemon.user(mapping), daemon.user(mapping));
        // One is on its way, there is a place for one more, and none for the fourth.
        agent.expect(WANT, 0, &[0, 1]);
        agent.expect_silence();
        let agents = [daemon.framed_agent(mapping), daemon.framed_agent(mapping)];
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
        let mapping = daemon.add_public(5);
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
        // One byte short; of version 1; with frames that are too small.
        let with = |at: usize, bytes: [u8; 2]| [&HELLO[..at], &bytes, &HELLO[at + 2..]].concat();
        let wrong = [HELLO[..19].to_vec(), with(8, [1, 0]), with(10, [0, 0]), with(10, [3, 0xff])];
        let nearly: Vec<Peer> = wrong
            .iter()
            .map(|hello| {
                let nearly = daemon.stranger(&mapping, 0);
                nearly.send(&[passcode, hello].concat());
                nearly.expect_message(b"AUTHORIZED");
                nearly
            })
            .collect();
        thread::sleep(SILENCE); // a hello would come at once
        nearly.iter().for_each(|nearly| assert_eq!(nearly.hear(Duration::from_millis(1)), Heard::Silence));
    });
}

#[test]
fn agents_of_both_versions_serve_one_mapping() {
    with_framed_agent(4, |pipe| {
        let (new, old) = (&pipe.agent, pipe.daemon.agent(&pipe.mapping));
        let silent = pipe.user(1);
        let second = pipe.daemon.user(&pipe.mapping);
        second.expect_silence();
        second.send(b"I begin");
        old.expect(b"I begin");
        new.send(DATA, 1, b"you need not");
        silent.expect(b"you need not");
        // One that comes when there is only an old agent left waits for a new one, until it says something.
        let third = pipe.daemon.user(&pipe.mapping);
        pipe.end(&silent, 1);
        new.expect_open(2);
        new.send(DATA, 2, b"third");
        third.expect(b"third");
    });
}

#[test]
fn a_reset_that_is_not_answered_costs_the_connection() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let pipe = FramedPipe::of(&mut daemon, mapping);
    pipe.user(1).reset();
    pipe.agent.expect_besides_want(RESET, 1);
    let start = Instant::now();
    pipe.agent.peer.expect_end();
    let waited = start.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    expect_lost(&daemon, "timeout", 1.0);
}

/// So many agents' connections were lost for this reason, and none is left or was lost for another one.
#[track_caller]
fn expect_lost(daemon: &Daemon, reason: &str, count: f64) {
    let mut metrics = daemon.controller().metrics();
    wait_until("no agent is left", PATIENCE, || {
        metrics = daemon.controller().metrics();
        metrics.get("agents") == 0.0
    });
    assert_eq!((metrics.of(reason, "agents_lost_total"), metrics.sum("agents_lost_total")), (count, count));
}

#[test]
fn an_agent_that_goes_instead_of_confirming_a_reset_is_counted() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        user.reset();
        agent.expect_besides_want(RESET, 1);
        agent.peer.finish();
        agent.peer.expect_end();
        expect_lost(daemon, "closed", 1.0);
    });
}

#[test]
fn an_idle_session_that_is_ended_does_not_cost_the_connection() {
    in_both_modes(|daemon| {
        let mut mapping = public_mapping(1, 0);
        mapping["idletimeout"] = 1.into();
        let mapping = daemon.add(&mapping);
        // The first user is there before the agent, the second one after it.
        let user = daemon.user(&mapping);
        let agent = daemon.framed_agent(&mapping);
        for (session, user) in [(1, user), (2, daemon.user(&mapping))] {
            agent.expect_open(session);
            user.send(b"hello");
            agent.expect_data(session, b"hello");
            assert_ne!(user.expect_end(), End::Clean);
            agent.expect_besides_want(RESET, session);
            agent.send(RESET, session, &[1]);
        }
        assert_eq!(daemon.controller().metrics().get("agents_authorized_total"), 1.0);
    });
}

#[test]
fn a_user_that_cannot_be_joined_keeps_nobody_behind_it_waiting() {
    in_both_modes(|daemon| {
        let mut mapping = public_mapping(2, 0);
        mapping["maxusers"] = 1.into();
        let mapping = daemon.add(&mapping);
        let from = |address| daemon.dial(mapping.ports[1]).from(address);
        // Over TLS one that never begins its handshake comes first.
        let mute = (daemon.mode == Mode::Tls).then(|| from([127, 0, 0, 3]).without_tls().connect());
        let [first, refused, last] = [[127, 0, 0, 1], [127, 0, 0, 1], [127, 0, 0, 2]]
            .map(|address| from(address).connect().expect("a connection"));
        let users = 3 + u64::from(mute.is_some());
        wait_until("all are there", PATIENCE, || daemon.controller().status(&mapping.id)["silent"] == users);
        let mut agents = Vec::new();
        for user in [&first, &last] {
            let agent = daemon.framed_agent(&mapping);
            agent.expect_open(1);
            agent.send(DATA, 1, b"welcome");
            user.expect(b"welcome");
            agents.push(agent);
        }
        refused.expect_end();
    });
}

#[test]
fn a_user_that_does_not_read_holds_its_own_agent_back_and_no_other() {
    with_framed_agent(2, |pipe| {
        let (agent, other) = (&pipe.agent, pipe.daemon.framed_agent(&pipe.mapping));
        let slow = pipe.narrow_user(1);
        let mut sent = Payload::new(9);
        let mut frames = 0;
        while agent.peer.send_within(&frame(DATA, 1, &Payload::new(frames).take(30_000)), Duration::from_millis(300)) {
            frames += 1;
            assert!(frames < 2_000, "60 MB are on their way to who reads nothing");
        }
        let quick = pipe.daemon.user(&pipe.mapping);
        other.expect_open(1);
        other.send(DATA, 1, &sent.take(100_000)[..60_000]);
        assert_eq!(quick.expect_some().first(), Payload::new(9).take(1).first());
        thread::scope(|scope| {
            scope.spawn(|| {
                agent.peer.flush();
                agent.send(FIN, 1, b"");
            });
            assert_eq!(slow.everything().len(), 30_000 * (frames as usize + 1));
        });
    });
}
