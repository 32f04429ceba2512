//! Options of a mapping, proxies in front and the want of buffers, with agents of version 2 (docs/protocol.md, sections 3
//! and 10).

use crate::harness::frames::{DATA, FIN, Frame, FramedPipe, Frames, OPEN, RESET, WANT, frame};
use crate::harness::{
    Daemon, End, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, for_both_modes, in_both_modes,
    public_mapping, wait_until,
};
use crate::truncation::expect_truncated;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const PROXY: [u8; 4] = [127, 0, 0, 2];
/// Why a session is broken off.
const SILENT: u8 = 3;
const FROM_OUTSIDE: u8 = 4;

/// A public mapping with these options.
pub fn add(daemon: &Daemon, connections: u32, options: &Value) -> Mapping {
    let mut mapping = public_mapping(connections, 0);
    let fields = mapping.as_object_mut().expect("an object");
    fields.extend(options.as_object().expect("an object").clone());
    daemon.add(&mapping)
}

/// The next frame that is no WANT.
#[track_caller]
fn next(agent: &Frames) -> Frame {
    loop {
        let next = agent.next();
        if next.kind != WANT {
            return next;
        }
    }
}

#[test]
fn the_first_payload_of_each_session_is_the_header_that_the_mapping_wants() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 1, &json!({"proxyprotocol": "v1"}));
        let pipe = FramedPipe::of(daemon, mapping);
        for session in 1..=3 {
            let user = pipe.user(session);
            let (from, to) = (user.local().port(), pipe.mapping.ports[1]);
            let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n");
            pipe.agent.expect_data(session, header.as_bytes());
            pipe.agent.send(DATA, session, b"220 ready");
            user.expect(b"220 ready");
            user.send(b"HELO");
            pipe.agent.expect_data(session, b"HELO");
            pipe.end(&user, session);
        }
        let status = pipe.daemon.controller().status(&pipe.mapping.id);
        assert_eq!((&status["bytesport1"], &status["bytesport2"]), (&27.into(), &12.into()), "{status}");
    });
}

#[test]
fn users_without_tls_may_end_their_half_and_are_told_as_such() {
    let mut daemon = Setup::new(Mode::Tls).start();
    let mapping = add(&daemon, 1, &json!({"users": "plain"}));
    let pipe = FramedPipe::of(&mut daemon, mapping);
    let user = pipe.daemon.dial(pipe.mapping.ports[1]).without_tls().connect().expect("a connection");
    let open = pipe.agent.expect_open(1).payload;
    assert_eq!((open[1], open.len()), (0, 14), "neither TLS nor its version");
    user.send(b"the whole question");
    user.finish();
    pipe.agent.expect_data(1, b"the whole question");
    pipe.agent.expect_besides_want(FIN, 1);
    pipe.agent.send(DATA, 1, b"late answer");
    pipe.agent.send(FIN, 1, b"");
    user.expect(b"late answer");
    user.expect_clean_end();
}

#[test]
fn a_session_in_which_nothing_moves_is_ended_and_the_next_one_is_not() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 1, &json!({"idletimeout": 1}));
        let pipe = FramedPipe::of(daemon, mapping);
        for session in 1..=2 {
            let user = pipe.user(session);
            pipe.agent.send(DATA, session, b"half an answer");
            user.expect(b"half an answer");
            let start = Instant::now();
            expect_truncated(&user);
            assert!(start.elapsed() > SECOND / 2, "{:?}", start.elapsed());
            let told = next(&pipe.agent);
            assert_eq!((told.kind, told.flags, &told.payload[..]), (RESET, session, &[SILENT][..]));
            pipe.agent.send(RESET, session, &[1]);
        }
        // Without a user it may be idle.
        assert_eq!(pipe.agent.hear(SECOND * 2), None);
        let user = pipe.user(3);
        for _ in 0..8 {
            user.send(b"more");
            pipe.agent.expect_data(3, b"more");
            thread::sleep(SECOND / 4); // less than the timeout
        }
        pipe.end(&user, 3);
    });
}

#[test]
fn no_agent_is_told_of_a_user_that_is_refused() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 1, &json!({"allow": ["127.0.0.1"]}));
        let pipe = FramedPipe::of(daemon, mapping);
        let others = pipe.daemon.dial(pipe.mapping.ports[1]).from(PROXY).without_tls().connect().expect("a connection");
        assert!(matches!(others.hear(PATIENCE), Heard::Ended(_)));
        pipe.agent.expect_silence();
        let user = pipe.user(1);
        pipe.end(&user, 1);
    });
}

#[test]
fn a_user_that_says_nothing_waits_as_long_as_its_mapping_says() {
    in_both_modes(|daemon| {
        for (seconds, least, most) in [(0, Duration::ZERO, SECOND * 2), (2, SECOND * 2, SECOND * 4)] {
            let mapping = add(daemon, 1, &json!({"waittime": seconds}));
            let pipe = FramedPipe::of(daemon, mapping);
            let served = pipe.user(1);
            let start = Instant::now();
            // It may be refused before its handshake is over.
            if let Ok(waiting) = pipe.daemon.dial(pipe.mapping.ports[1]).connect() {
                waiting.expect_end();
            }
            assert!((least..most).contains(&start.elapsed()), "{:?}", start.elapsed());
            pipe.end(&served, 1);
        }
    });
}

#[test]
fn a_user_comes_from_where_its_proxy_says_and_a_health_check_takes_no_agent() {
    for_both_modes(|mode| {
        let mut daemon = Setup::new(mode).set("trustproxy", json!(["127.0.0.2"])).start();
        let mapping = daemon.add_public(1);
        let pipe = FramedPipe::of(&mut daemon, mapping);
        let proxy = |header: &[u8]| {
            let dial = pipe.daemon.dial(pipe.mapping.ports[1]).from(PROXY).after([header]);
            dial.connect().expect("a connection")
        };
        let check = proxy(b"PROXY UNKNOWN\r\n");
        pipe.agent.expect_silence();
        for session in 1..=2 {
            let user = proxy(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n");
            let open = next(&pipe.agent);
            assert_eq!((open.kind, open.flags, open.payload[0]), (OPEN, session, 6));
            let ends = [&b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x9c\x40"[..], &b"\x20\x01\x0d\xb8"[..]].concat();
            assert_eq!(open.payload[2..24], ends);
            pipe.end(&user, session);
        }
        check.send(b"a user after all");
        let open = next(&pipe.agent);
        assert_eq!((open.kind, open.flags), (OPEN, 3));
        pipe.agent.expect_data(3, b"a user after all");
    });
}

/// Agents, each with a user from there that takes nothing, and what was sent for it.
fn stalled(daemon: &Daemon, mapping: &Mapping, count: usize, from: [u8; 4]) -> Vec<(Frames, Peer)> {
    let pair = |_| {
        let agent = daemon.framed_agent(mapping);
        let dial = daemon.dial(mapping.ports[1]).small_buffers().from(from);
        let user = dial.connect().expect("a connection");
        agent.expect_open(1);
        (agent, user)
    };
    let pairs: Vec<_> = (0..count).map(pair).collect();
    thread::scope(|scope| {
        for (agent, _) in &pairs {
            scope.spawn(|| while agent.peer.send_within(&frame(DATA, 1, &[b'x'; 16_000]), SILENCE) {});
        }
    });
    pairs
}

#[test]
fn who_is_ended_for_want_of_buffers_keeps_its_agent_and_nobody_else_notices() {
    // Without TLS nobody waits for a buffer.
    let mut daemon = Setup::new(Mode::Tls).set("buffers", 4).start();
    let [crowded, mapping] = [8, 1].map(|places| daemon.add_public(places));
    let crowd = stalled(&daemon, &crowded, 8, PROXY);
    let pipe = FramedPipe::of(&mut daemon, mapping);
    let user = pipe.user(1);
    let mut session = 1;
    let ended = || pipe.daemon.controller().metrics().of("shortage", "sessions_ended_total") >= 1.0;
    let start = Instant::now();
    while !ended() {
        assert!(start.elapsed() < PATIENCE * 2, "nobody is ended");
        user.send(b"question");
        pipe.agent.expect_data(session, b"question");
        pipe.agent.send(DATA, session, b"answer");
        user.expect(b"answer");
        thread::sleep(SECOND / 10); // how busy it is
    }
    pipe.end(&user, session);
    session += 1;
    let user = pipe.user(session);
    pipe.end(&user, session);
    // Its connection is still there, and told of the end.
    let told = |agent: &Frames| match agent.hear(SILENCE) {
        Some(Frame { kind: RESET, payload, .. }) => payload == [FROM_OUTSIDE],
        Some(Frame { kind: WANT, .. }) | None => false,
        other => panic!("{other:?}"),
    };
    wait_until("an agent is told", PATIENCE, || crowd.iter().any(|(agent, _)| told(agent)));
}

#[test]
fn slow_downloads_all_finish_with_half_as_many_buffers() {
    const SIZE: usize = 1_000_000;
    let daemon = Setup::new(Mode::Tls).set("buffers", 8).start();
    let mapping = daemon.add_public(16);
    let pair = |_| {
        let agent = daemon.framed_agent(&mapping);
        let user = daemon.user(&mapping);
        agent.expect_open(1);
        (agent, user)
    };
    let pairs: Vec<_> = (0..16).map(pair).collect();
    thread::scope(|scope| {
        for (seed, (agent, user)) in pairs.iter().enumerate() {
            scope.spawn(move || {
                let payload = Payload::new(seed as u64).take(SIZE);
                payload.chunks(16_000).for_each(|piece| agent.send(DATA, 1, piece));
                agent.send(FIN, 1, b"");
            });
            scope.spawn(move || {
                let mut heard = Payload::new(seed as u64);
                loop {
                    match user.hear(PATIENCE) {
                        Heard::Message(bytes) => heard.check(&bytes),
                        end => {
                            assert_eq!(end, Heard::Ended(End::Clean), "after {}", heard.position());
                            break assert_eq!(heard.position(), SIZE as u64);
                        }
                    }
                    // A slow reader.
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
}

#[test]
fn slow_readers_leave_a_quarter_of_the_buffers_to_others() {
    in_both_modes_with_buffers(8, |daemon| {
        let mapping = daemon.add_public(12);
        let _crowd = stalled(daemon, &mapping, 12, PROXY);
        let buffers = || daemon.controller().status("all")["buffers"].as_u64();
        // Over TLS who has the beginning of a record waits for the sixth and leaves it to its payload.
        let may = if daemon.mode == Mode::Tls { 5..=6 } else { 6..=6 };
        wait_until("they hold what they may", PATIENCE, || buffers() >= Some(*may.start()));
        thread::sleep(SILENCE);
        assert!(may.contains(&buffers().unwrap()), "{:?}", buffers());
    });
}

#[test]
fn nothing_is_lost_or_mixed_while_no_buffer_is_to_be_had() {
    in_both_modes_with_buffers(4, |daemon| {
        let [crowded, mapping] = [8, 1].map(|places| daemon.add_public(places));
        // Over TLS a part of them is for others.
        let from = if daemon.mode == Mode::Tls { PROXY } else { [127, 0, 0, 1] };
        let _crowd = stalled(daemon, &crowded, 8, from);
        let pipe = FramedPipe::of(daemon, mapping);
        for session in 1..=3 {
            let user = pipe.narrow_user(session);
            const SIZE: usize = 2_000_000;
            // Of all sizes, so that headers stand everywhere.
            let frames = |seed| {
                let mut payload = Payload::new(seed);
                let mut left = SIZE;
                std::iter::from_fn(move || {
                    let next = left.min(1 + (left * 7919) % 20_000);
                    left -= next;
                    (next > 0).then(|| payload.take(next))
                })
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    frames(1).for_each(|piece| pipe.agent.send(DATA, session, &piece));
                    pipe.agent.send(FIN, session, b"");
                });
                scope.spawn(|| {
                    frames(2).for_each(|piece| user.send(&piece));
                    user.finish();
                });
                scope.spawn(|| {
                    let mut heard = Payload::new(2);
                    loop {
                        let frame = next(&pipe.agent);
                        match frame.kind {
                            DATA => heard.check(&frame.payload),
                            FIN => break assert_eq!(heard.position(), SIZE as u64),
                            _ => panic!("{frame:?}"),
                        }
                    }
                });
                Payload::new(1).receive(&user, SIZE as u64);
            });
            user.expect_clean_end();
        }
    });
}

fn in_both_modes_with_buffers(count: usize, test: impl Fn(&mut Daemon) + Sync) {
    for_both_modes(|mode| test(&mut Setup::new(mode).set("buffers", count).start()));
}
