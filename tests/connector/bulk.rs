//! Much at once: both directions busy, many users, slow readers, and what that costs in memory.

use crate::harness::{
    Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Setup, Talk, for_both_modes, in_both_modes,
    in_both_versions, join, public_mapping,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Sends and checks `total` bytes each way at once.
fn full_duplex(left: &dyn Talk, right: &dyn Talk, total: u64) {
    thread::scope(|scope| {
        for (seed, from, to) in [(1, left, right), (2, right, left)] {
            scope.spawn(move || Payload::new(seed).send(from, total));
            scope.spawn(move || Payload::new(seed).receive(to, total));
        }
    });
}

fn bulk(daemon: &Daemon) -> u64 {
    match daemon.mode {
        Mode::Plain => 12 * MIB,
        Mode::Tls => 3 * MIB,
    }
}

#[test]
fn a_public_pipe_busy_both_ways_loses_nothing() {
    in_both_versions(|daemon, version| {
        let (agent, user) = daemon.pair_of(version, &daemon.add_public(1));
        full_duplex(&*agent, &user, bulk(daemon));
    });
}

#[test]
fn a_private_pipe_busy_both_ways_loses_nothing() {
    in_both_versions(|daemon, version| {
        let [left, right] = daemon.joined_of(version, &daemon.add_private(1));
        full_duplex(&*left, &*right, bulk(daemon));
    });
}

#[test]
fn adding_and_removing_mappings_does_not_disturb_others() {
    in_both_versions(|daemon, version| {
        let (agent, user) = daemon.pair_of(version, &daemon.add_public(1));
        let busy = AtomicBool::new(true);
        let changes = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    let passing = daemon.add_public(1);
                    drop(daemon.pair_of(version, &passing));
                    daemon.controller().remove(&passing);
                    changes.fetch_add(1, Ordering::Relaxed);
                }
            });
            full_duplex(&*agent, &user, bulk(daemon) / 2);
            busy.store(false, Ordering::Relaxed);
        });
        assert!(changes.into_inner() > 0, "nothing was added meanwhile");
    });
}

/// An agent that answers its user with twice what it was asked for, and comes back until told to stop.
fn echo_twice(mut agent: Peer, daemon: &Daemon, mapping: &Mapping, running: &AtomicBool) {
    while running.load(Ordering::Relaxed) {
        loop {
            match agent.hear(Duration::from_millis(100)) {
                Heard::Message(bytes) => {
                    let _ = agent.try_send(&bytes, PATIENCE).and_then(|_| agent.try_send(&bytes, PATIENCE));
                }
                Heard::Ended(_) => break,
                Heard::Silence if running.load(Ordering::Relaxed) => {}
                Heard::Silence => return,
            }
        }
        agent = daemon.agent(mapping);
    }
}

#[test]
fn five_hundred_users_share_fifty_agents() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(50);
        // Over TLS fewer at once: handshakes of a debug build must not make anybody wait for 5 s on a busy machine.
        let (users, at_once) = if daemon.mode == Mode::Plain { (500, 50) } else { (250, 10) };
        let running = AtomicBool::new(true);
        let next = AtomicUsize::new(0);
        let first: Vec<Peer> = (0..50).map(|_| daemon.agent(&mapping)).collect();
        thread::scope(|scope| {
            for agent in first {
                scope.spawn(|| echo_twice(agent, daemon, &mapping, &running));
            }
            let crowd: Vec<_> = (0..at_once)
                .map(|_| {
                    scope.spawn(|| {
                        while next.fetch_add(1, Ordering::Relaxed) < users {
                            ask_one_question(daemon, &mapping, next.load(Ordering::Relaxed) as u64);
                        }
                    })
                })
                .collect();
            let served = crowd.into_iter().all(|user| user.join().is_ok());
            running.store(false, Ordering::Relaxed);
            assert!(served, "not every user was served");
        });
    });
}

fn ask_one_question(daemon: &Daemon, mapping: &Mapping, seed: u64) {
    let user = daemon.user(mapping);
    let question = Payload::new(seed).take(1000);
    user.send(&question);
    user.expect(&[&question[..], &question].concat());
}

/// Joins `count` users that never read to agents that send until nobody takes any more.
fn stalled_downloads(daemon: &Daemon, mapping: &Mapping, count: usize) -> Vec<(Peer, Peer)> {
    let connect = |port| daemon.dial(port).small_buffers().connect().expect("a connection");
    let authorized = || {
        let agent = connect(mapping.ports[0]);
        agent.authorize(mapping, 0);
        agent
    };
    let agents: Vec<Peer> = (0..count).map(|_| authorized()).collect();
    let pair = |agent| {
        let user = connect(mapping.ports[1]);
        join(&agent, &user); // whoever was authorized first is free longest
        (agent, user)
    };
    let pairs: Vec<_> = agents.into_iter().map(pair).collect();
    thread::scope(|scope| {
        for (agent, _) in &pairs {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
        }
    });
    pairs
}

#[test]
fn stalled_downloads_do_not_slow_another_one() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(65);
        let stalled = stalled_downloads(daemon, &mapping, 64);
        let (agent, user) = daemon.pair(&mapping);
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| Payload::new(10).send(&agent, 8 * MIB));
            Payload::new(10).receive(&user, 8 * MIB);
        });
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "8 MiB took {took:?} beside 64 stalled downloads");
        drop(stalled);
    });
}

#[test]
fn slow_readers_cost_no_more_than_the_buffers() {
    for_both_modes(|mode| {
        let daemon = Setup::new(mode).set("buffers", 32).start();
        let mapping = daemon.add(&public_mapping(100, 0));
        drop(daemon.pair(&mapping)); // what is allocated once is there
        let before = daemon.resident_kib();
        let stalled = stalled_downloads(&daemon, &mapping, 96);
        let grown = daemon.resident_kib().saturating_sub(before);
        // 32 buffers of 64 KiB, and 192 connections of up to 24 KiB in a debug build.
        assert!(grown < 32 * 64 + 192 * 24, "{grown} KiB more for 96 stalled downloads");
        drop(stalled);
    });
}

#[test]
fn all_stalled_downloads_finish_once_their_readers_read() {
    in_both_versions(|daemon, version| {
        let mapping = daemon.add_public(20);
        let pairs: Vec<_> = (0..20).map(|_| daemon.pair_of(version, &mapping)).collect();
        thread::scope(|scope| {
            for (seed, (agent, user)) in pairs.iter().enumerate() {
                scope.spawn(move || {
                    Payload::new(seed as u64).send(&**agent, MIB / 2);
                    agent.finish();
                });
                scope.spawn(move || {
                    Payload::new(seed as u64).receive(user, MIB / 2);
                    user.expect_clean_end();
                });
            }
        });
    });
}
