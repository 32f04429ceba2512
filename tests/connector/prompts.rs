//! Agents as they are in the field close a connection on which they have heard nothing for a minute; their own
//! heartbeats queue behind their own payload. One test, since each case has to wait for the real 15 s.

use crate::harness::{Daemon, Heard, Mode, PATIENCE, Payload, Peer, SILENCE, in_both_modes};
use std::thread;
use std::time::{Duration, Instant};

/// A heartbeat is due every 15 s ...
const EARLIEST: Duration = Duration::from_secs(15);
/// ... and looked for once a second. The rest is for a busy machine: before half a minute is over another is not due.
const LATEST: Duration = Duration::from_secs(25);

/// A heartbeat that was not asked for comes in time, as a message of its own. `start`: before anything was said.
#[track_caller]
fn expect_prompt(agent: &Peer, start: Instant) {
    assert_eq!(agent.hear(LATEST), Heard::Message(b"BEAT".to_vec()));
    assert!(start.elapsed() >= EARLIEST, "after {:?}", start.elapsed());
}

/// An agent whose user has asked once and reads nothing: what it sends is held back, its own heartbeat last.
fn held_back(daemon: &Daemon) {
    let start = Instant::now();
    let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
    let mut sent = Payload::new(1);
    sent.send_until_stalled(&agent);
    if daemon.mode == Mode::Tls {
        agent.send_within(b"BEAT", SILENCE); // in dev mode it would run together with payload
    }
    expect_prompt(&agent, start);
    thread::scope(|scope| {
        scope.spawn(|| agent.flush());
        Payload::new(1).receive(&user, sent.position());
    });
    if daemon.mode == Mode::Tls {
        agent.expect_message(b"BEAT"); // the answer
        user.expect_silence();
    }
}

/// The same while it is told something all the time.
fn held_back_and_told(daemon: &Daemon) {
    let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
    Payload::new(1).send_until_stalled(&agent);
    let start = Instant::now();
    loop {
        user.send(b"payload");
        match agent.expect_some() {
            heard if heard == b"BEAT" => return,
            heard => assert_eq!(heard, b"payload"),
        }
        assert!(start.elapsed() < LATEST, "no heartbeat, although nothing is heard of it");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Nobody says anything. What the user says afterwards is a message of its own.
fn idle(daemon: &Daemon) {
    let start = Instant::now();
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    expect_prompt(&agent, start);
    user.send(b"payload");
    agent.expect_message(b"payload");
    agent.send(b"answer");
    user.expect(b"answer");
}

/// Payload is on its way to it and it does not read: a heartbeat has no place in it.
fn not_reading(daemon: &Daemon) {
    let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
    let mut sent = Payload::new(1);
    sent.send_until_stalled(&user);
    assert_eq!(user.hear(EARLIEST + Duration::from_secs(3)), Heard::Silence);
    thread::scope(|scope| {
        scope.spawn(|| user.flush());
        let mut heard = Payload::new(1);
        while heard.position() < sent.position() {
            match agent.expect_some() {
                beat if daemon.mode == Mode::Tls && beat == b"BEAT" => {}
                payload => heard.check(&payload),
            }
        }
    });
}

/// In dev mode a prompt is told: it must not make an agent that is gone look alive.
fn absent(daemon: &Daemon) {
    let mapping = daemon.add(&crate::harness::public_mapping(1, 17_000));
    let start = Instant::now();
    let (agent, user) = daemon.pair(&mapping);
    expect_prompt(&agent, start);
    agent.expect_end_at_last(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(28), "after {:?}", start.elapsed());
    user.expect_end();
}

#[test]
fn an_agent_that_hears_nothing_is_sent_a_heartbeat() {
    in_both_modes(|daemon| {
        let daemon = &*daemon;
        let mut cases: Vec<fn(&Daemon)> = vec![held_back, idle, not_reading, absent];
        if daemon.mode == Mode::Tls {
            cases.push(held_back_and_told);
        }
        thread::scope(|scope| {
            for case in cases {
                scope.spawn(move || case(daemon));
            }
        });
    });
}
