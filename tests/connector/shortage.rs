//! All relay buffers in use: who waits for one goes on when one comes back, and the API has its own.

use crate::harness::{Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Setup, join, public_mapping};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const HONEST: [u8; 4] = [127, 0, 0, 1];
const PAUSING: [u8; 4] = [127, 0, 0, 3];
const CROWD: [u8; 4] = [127, 0, 0, 2];

/// An agent and its user, who calls from there.
fn pair_from(daemon: &Daemon, mapping: &Mapping, address: [u8; 4]) -> (Peer, Peer) {
    let dial = |port| daemon.dial(port).small_buffers();
    let agent = dial(mapping.ports[0]).connect().expect("a connection");
    agent.authorize(mapping, 0);
    let user = dial(mapping.ports[1]).from(address).connect().expect("a connection");
    join(&agent, &user);
    (agent, user)
}

#[test]
fn slow_downloads_all_finish_with_half_as_many_buffers() {
    const SIZE: usize = 1_500_000;
    let daemon = Setup::new(Mode::Tls).set("buffers", 8).start();
    let mapping = daemon.add(&public_mapping(16, 0));
    let pairs: Vec<_> = (0..16).map(|_| daemon.pair(&mapping)).collect();
    thread::scope(|scope| {
        for (seed, (agent, user)) in pairs.iter().enumerate() {
            scope.spawn(move || {
                Payload::new(seed as u64).send(agent, SIZE as u64);
                agent.finish();
            });
            scope.spawn(move || {
                let mut got = 0;
                loop {
                    match user.hear(PATIENCE) {
                        Heard::Message(bytes) => got += bytes.len(),
                        end => break assert!(got == SIZE, "{got} of {SIZE} bytes, then {end:?}"),
                    }
                    // A slow reader.
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
}

#[test]
fn slow_readers_that_hold_all_buffers_do_not_silence_the_api() {
    let daemon = Setup::new(Mode::Tls).set("buffers", 4).start();
    let mapping = daemon.add(&public_mapping(20, 0));
    let pairs: Vec<_> = (0..8).map(|_| pair_from(&daemon, &mapping, CROWD)).collect();
    thread::scope(|scope| {
        for (agent, _) in &pairs {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
        }
    });
    let status = daemon.controller().status("all");
    assert_eq!((&status["buffers"], &status["maxbuffers"]), (&4.into(), &4.into()));
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.controller().status("all")["status"], "running");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "20 answers took {:?}", start.elapsed());
}

#[test]
fn a_crowd_that_takes_a_little_now_and_then_gives_way_before_one_that_pauses() {
    let daemon = Setup::new(Mode::Tls).set("buffers", 4).start();
    let mapping = daemon.add(&public_mapping(20, 0));
    let (pausing_agent, pausing) = pair_from(&daemon, &mapping, PAUSING);
    Payload::new(1).send_until_stalled(&pausing_agent);
    let crowd: Vec<_> = (0..6).map(|_| pair_from(&daemon, &mapping, CROWD)).collect();
    let (agent, user) = pair_from(&daemon, &mapping, HONEST);
    let running = AtomicBool::new(true);
    let began = Instant::now();
    thread::scope(|scope| {
        for (agent, user) in &crowd {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
            // Less than a record in ten seconds, but never nothing.
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) && user.skip_raw(500).is_ok_and(|count| count > 0) {
                    thread::sleep(Duration::from_millis(500));
                }
            });
        }
        scope.spawn(|| {
            let start = Instant::now();
            Payload::new(10).receive(&user, 4 << 20);
            running.store(false, Ordering::Relaxed);
            assert!(start.elapsed() < Duration::from_secs(40), "it took {:?}", start.elapsed());
        });
        Payload::new(10).send(&agent, 4 << 20);
    });
    let log = daemon.log();
    // Within ten seconds nobody has to go.
    let is_ended = log.contains("All relay buffers are in use; the connection of 127.0.0.2:");
    assert!(is_ended || began.elapsed() < Duration::from_secs(10), "{log}");
    assert!(!log.contains("the connection of 127.0.0.3:"), "{log}");
    // It was no more than slow: what was sent for it is still coming.
    assert!(matches!(pausing.hear(PATIENCE), Heard::Message(_)));
}
