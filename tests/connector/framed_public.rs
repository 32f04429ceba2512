//! What public pipes promise is kept with agents of version 2, too (docs/protocol.md, sections 5 and 10).

use crate::access_log::{agree, number, sessions, with_access_log};
use crate::early_answer::{ANSWER, answer_during_upload};
use crate::framed_options::add;
use crate::harness::frames::{DATA, FIN, FramedPipe, Frames, HELLO, PING, PONG, RESET, WANT, with_framed_agent};
use crate::harness::{
    End, Heard, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, beat, for_both_modes, in_both_modes, public_mapping,
    wait_until,
};
use crate::truncation::{breaks, expect_truncated};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SENT: usize = 100_000;
const SECOND: Duration = Duration::from_secs(1);

/// Payload of a session, in frames of at most 16,000 bytes.
fn send(agent: &Frames, session: u8, payload: &[u8]) {
    payload.chunks(16_000).for_each(|piece| agent.send(DATA, session, piece));
}

/// The next `total` bytes of a payload in a session. How many PONGs came between them.
#[track_caller]
fn receive(agent: &Frames, session: u8, payload: &mut Payload, total: u64) -> usize {
    let (end, mut pongs) = (payload.position() + total, 0);
    while payload.position() < end {
        let next = agent.next();
        match next.kind {
            DATA => {
                assert_eq!(next.flags, session);
                payload.check(&next.payload);
            }
            PONG => pongs += 1,
            WANT => {}
            _ => panic!("{next:?} after {} bytes", payload.position()),
        }
    }
    pongs
}

/// A session in which both have heard each other.
#[track_caller]
fn talk(pipe: &FramedPipe<'_>, session: u8) -> Peer {
    let user = pipe.user(session);
    user.send(b"hello");
    pipe.agent.expect_data(session, b"hello");
    pipe.agent.send(DATA, session, b"answer");
    user.expect(b"answer");
    user
}

#[test]
fn a_user_of_an_agent_that_breaks_off_gets_all_of_it_and_no_proper_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        for (round, how) in breaks(daemon.mode).iter().enumerate() {
            let pipe = FramedPipe::of(daemon, mapping.clone());
            let user = pipe.user(1);
            send(&pipe.agent, 1, &Payload::new(1).take(SENT));
            let passed_on = (round + 1) * SENT;
            wait_until("it is passed on", PATIENCE, || {
                pipe.daemon.controller().status(&mapping.id)["bytesport1"] == passed_on
            });
            let kept = how.off(pipe.agent.peer);
            Payload::new(1).receive(&user, SENT as u64);
            expect_truncated(&user);
            drop(kept);
        }
    });
}

#[test]
fn an_agent_is_told_of_a_user_that_breaks_off_and_serves_the_next() {
    with_framed_agent(1, |pipe| {
        let mut session = 0;
        for how in breaks(pipe.daemon.mode) {
            session += 1;
            let user = pipe.user(session);
            user.send(&Payload::new(1).take(SENT));
            receive(&pipe.agent, session, &mut Payload::new(1), SENT as u64);
            let _kept = how.off(user);
            pipe.agent.expect_besides_want(RESET, session);
            pipe.agent.send(RESET, session, &[1]);
        }
        talk(pipe, session + 1);
    });
}

/// Neither side takes the end of this session for a proper one.
#[track_caller]
fn expect_both_truncated(agent: &Frames, user: &Peer) {
    expect_truncated(user);
    let (frames, _) = agent.until_end();
    assert!(frames.iter().all(|frame| frame.kind != FIN), "{frames:?}");
}

#[test]
fn a_session_that_is_interrupted_has_no_proper_end_on_either_side() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let pipe = FramedPipe::of(daemon, mapping);
        let user = talk(&pipe, 1);
        pipe.daemon.controller().remove(&pipe.mapping);
        expect_both_truncated(&pipe.agent, &user);
        // Nobody says PING.
        let silent = daemon.add(&public_mapping(1, 500));
        let pipe = FramedPipe::of(daemon, silent);
        let user = talk(&pipe, 1);
        expect_both_truncated(&pipe.agent, &user);
        for stop in [libc::SIGTERM, libc::SIGKILL] {
            let mapping = daemon.add_public(1);
            let FramedPipe { agent, daemon, mapping } = FramedPipe::of(daemon, mapping);
            let user = daemon.user(&mapping);
            agent.expect_open(1);
            agent.send(DATA, 1, b"half an answer");
            user.expect(b"half an answer");
            daemon.signal(stop);
            expect_both_truncated(&agent, &user);
            daemon.wait();
            daemon.start();
        }
    });
}

#[test]
fn what_is_on_its_way_is_delivered_before_a_stop() {
    with_framed_agent(2, |pipe| {
        let idle = pipe.daemon.framed_agent(&pipe.mapping);
        let user = pipe.user(1);
        send(&pipe.agent, 1, &Payload::new(1).take(SENT));
        let bytes = || pipe.daemon.controller().status(&pipe.mapping.id)["bytesport1"] == SENT;
        wait_until("it is passed on", PATIENCE, bytes);
        let start = Instant::now();
        assert_eq!(pipe.daemon.terminate().code(), Some(0));
        assert!(start.elapsed() < SECOND, "took {:?}", start.elapsed());
        Payload::new(1).receive(&user, SENT as u64);
        expect_truncated(&user);
        idle.peer.expect_clean_end();
    });
}

#[test]
fn an_answer_that_comes_before_the_upload_is_over_arrives() {
    with_framed_agent(1, |pipe| {
        for session in 1..=10 {
            let user = pipe.daemon.user(&pipe.mapping);
            let agent = &pipe.agent;
            thread::scope(|scope| {
                scope.spawn(|| {
                    agent.expect_open(session);
                    while agent.next().kind != DATA {}
                    send(agent, session, &Payload::new(413).take(ANSWER));
                    agent.send(FIN, session, b"");
                    agent.send(RESET, session, &[1]);
                    // What was on its way comes before the answer to that.
                    while [DATA, WANT].contains(&agent.next().kind) {}
                });
                assert!(answer_during_upload(&user) == Payload::new(413).take(ANSWER), "session {session}");
            });
        }
    });
}

#[test]
fn a_half_closed_user_gives_way_to_one_who_waits() {
    with_framed_agent(1, |pipe| {
        let user = talk(pipe, 1);
        user.finish();
        pipe.agent.expect_besides_want(FIN, 1);
        let start = Instant::now();
        let waiting = pipe.daemon.user(&pipe.mapping);
        user.expect_end();
        assert!(start.elapsed() < 4 * SECOND, "took {:?} instead of 200 ms", start.elapsed());
        pipe.agent.expect_besides_want(RESET, 1);
        pipe.agent.send(RESET, 1, &[1]);
        pipe.agent.expect_open(2);
        pipe.agent.send(DATA, 2, b"your turn");
        waiting.expect(b"your turn");
    });
}

#[test]
fn an_agent_that_does_not_read_holds_its_user_back_and_nothing_is_lost() {
    with_framed_agent(1, |pipe| {
        for session in 1..=2 {
            let user = pipe.narrow_user(session);
            let mut sent = Payload::new(4);
            sent.send_until_stalled(&user);
            thread::scope(|scope| {
                scope.spawn(|| {
                    user.flush();
                    user.finish();
                });
                receive(&pipe.agent, session, &mut Payload::new(4), sent.position());
            });
            pipe.agent.expect_besides_want(FIN, session);
            pipe.agent.send(FIN, session, b"");
            user.expect_clean_end();
        }
    });
}

#[test]
fn the_257th_waiting_user_pushes_out_the_oldest_and_the_order_is_kept() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = add(&daemon, 1, &json!({"waittime": 60}));
    let pipe = FramedPipe::of(&mut daemon, mapping);
    let served = pipe.user(1);
    // They have said nothing.
    let users: Vec<Peer> = (0..257).map(|_| pipe.daemon.user(&pipe.mapping)).collect();
    users[0].expect_end();
    wait_until("256 users wait", PATIENCE, || pipe.daemon.controller().status(&pipe.mapping.id)["waiting"] == 256);
    pipe.end(&served, 1);
    for (session, user) in (2..=4).zip(&users[1..]) {
        let open = pipe.agent.expect_open(session).payload;
        assert_eq!(open[6..8], user.local().port().to_be_bytes(), "session {session}");
        pipe.end(user, session);
    }
}

#[test]
fn one_address_has_so_many_sessions_and_a_mapping_so_many_agents() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 2, &json!({"maxusers": 1}));
        let pipe = FramedPipe::of(daemon, mapping);
        let other = pipe.daemon.framed_agent(&pipe.mapping);
        let user = talk(&pipe, 1);
        let second = pipe.daemon.user(&pipe.mapping);
        assert!(matches!(second.hear(PATIENCE), Heard::Ended(_)));
        other.expect_silence();
        let elsewhere = pipe.daemon.dial(pipe.mapping.ports[1]).from([127, 0, 0, 2]).connect().expect("a connection");
        other.expect_open(1);
        other.send(DATA, 1, b"welcome");
        elsewhere.expect(b"welcome");
        // A place counts for the connection, whatever is served on it.
        let third = pipe.daemon.stranger(&pipe.mapping, 0);
        third.send(&[pipe.mapping.passcodes[0].as_bytes(), HELLO].concat());
        third.expect_end();
        user.send(b"still here");
        pipe.agent.expect_data(1, b"still here");
    });
}

#[test]
fn pings_keep_a_connection_and_its_sessions_and_silence_ends_them() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&public_mapping(1, 1_000));
        let pipe = FramedPipe::of(daemon, mapping);
        let ping = || {
            pipe.agent.send(PING, 0, b"");
            pipe.agent.expect_besides_want(PONG, 0);
            thread::sleep(SECOND / 4); // the pause between two
        };
        (0..8).for_each(|_| ping());
        let user = talk(&pipe, 1);
        (0..8).for_each(|_| ping());
        user.expect_silence();
        let start = Instant::now();
        expect_both_truncated(&pipe.agent, &user);
        assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
    });
}

#[test]
fn an_agent_that_is_held_back_is_not_taken_for_dead() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&public_mapping(1, 1_000));
        let pipe = FramedPipe::of(daemon, mapping);
        let user = pipe.narrow_user(1);
        let (mut sent, agent) = (0, &pipe.agent);
        // Its PINGs would stand behind its payload.
        while agent.peer.send_within(&crate::harness::frames::frame(DATA, 1, &[b'x'; 30_000]), SILENCE) {
            sent += 30_000;
            assert!(sent < 256 << 20);
        }
        assert_eq!(agent.hear(3 * SECOND), None);
        thread::scope(|scope| {
            scope.spawn(|| {
                agent.peer.flush();
                agent.send(FIN, 1, b"");
            });
            assert_eq!(user.everything().len(), sent + 30_000);
        });
    });
}

#[test]
fn an_agent_that_does_not_read_lives_by_its_pings() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&public_mapping(1, 2_500));
        let pipe = FramedPipe::of(daemon, mapping);
        let user = pipe.narrow_user(1);
        let (beating, agent) = (AtomicBool::new(true), &pipe.agent);
        thread::scope(|scope| {
            scope.spawn(|| beat(|| agent.send(PING, 0, b""), &beating));
            let mut sent = Payload::new(6);
            sent.send_until_stalled(&user);
            assert_eq!(user.hear(5 * SECOND), Heard::Silence); // twice the threshold
            scope.spawn(|| user.flush());
            let pongs = receive(agent, 1, &mut Payload::new(6), sent.position());
            beating.store(false, Ordering::Relaxed);
            assert!(pongs > 0, "they are answered between the payload");
        });
    });
}

#[test]
fn payload_is_counted_and_headers_are_not() {
    with_framed_agent(2, |pipe| {
        let user = talk(pipe, 1);
        let status = |expected: &[(&str, u64)]| {
            wait_until(&format!("status says {expected:?}"), PATIENCE, || {
                let status = pipe.daemon.controller().status(&pipe.mapping.id);
                expected.iter().all(|(key, value)| status[*key] == *value)
            });
        };
        status(&[("agents", 1), ("free", 0), ("joined", 1), ("users", 1), ("bytesport1", 6), ("bytesport2", 5)]);
        pipe.end(&user, 1);
        status(&[("agents", 1), ("free", 1), ("joined", 0), ("users", 0), ("discarded", 0), ("unsettled", 0)]);
        let metrics = pipe.daemon.controller().metrics();
        for (name, value) in [("sessions_total", 1.0), ("agents_authorized_total", 1.0), ("agents", 1.0)] {
            assert_eq!(metrics.get(name), value, "{name}");
        }
        assert_eq!((metrics.sum("sessions_ended_total"), metrics.sum("agents_lost_total")), (1.0, 0.0));
    });
}

#[test]
fn each_session_on_a_connection_is_a_line_of_the_access_log_and_they_add_up() {
    for_both_modes(|mode| {
        let mut daemon = with_access_log(mode).start();
        let mapping = add(&daemon, 1, &json!({"name": "web"}));
        let pipe = FramedPipe::of(&mut daemon, mapping);
        let agent = pipe.agent.peer.local().to_string();
        let mut users = Vec::new();
        let mut next = |session| {
            let user = talk(&pipe, session);
            users.push(user.local().to_string());
            user
        };
        let user = next(1);
        pipe.end(&user, 1);
        let user = next(2);
        user.finish();
        pipe.agent.expect_besides_want(FIN, 2);
        send(&pipe.agent, 2, &[b'x'; 50_000]);
        pipe.agent.send(FIN, 2, b"");
        assert_eq!(user.everything().len(), 50_000);
        next(3).reset();
        pipe.agent.expect_besides_want(RESET, 3);
        pipe.agent.send(RESET, 3, &[1]);
        let user = next(4);
        pipe.agent.send(RESET, 4, &[1]);
        assert_ne!(user.expect_end(), End::Clean);
        pipe.agent.expect_besides_want(RESET, 4);
        let lines = sessions(pipe.daemon, 4);
        agree(&pipe.daemon.controller().metrics(), &lines);
        for (line, user) in lines.iter().zip(&users) {
            let tls = if mode == Mode::Tls { "TLSv1.3" } else { "-" };
            let expected =
                [("agent", &agent[..]), ("user", user), ("name", "web"), ("tlsport1", tls), ("waited", "0.000")];
            for (key, value) in expected {
                assert_eq!(line[key], value, "{key} in {line:?}");
            }
            assert_eq!(number(line, "bytesport2"), 5.0, "{line:?}");
        }
        // Of two proper ends the first counts.
        let told: Vec<_> = lines.iter().map(|line| (line["ended"].as_str(), line["by"].as_str())).collect();
        assert_eq!(told, [("agent", "agent"), ("user", "user"), ("reset", "user"), ("reset", "agent")]);
        assert_eq!(number(&lines[1], "bytesport1"), 50_006.0);
    });
}
