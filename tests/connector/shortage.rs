//! All relay buffers in use: who waits for one goes on when one comes back, and the API has its own.

use crate::harness::{
    Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, for_both_modes, join, public_mapping,
    wait_until,
};
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
    // One is for others.
    let status = daemon.controller().status("all");
    assert_eq!((&status["buffers"], &status["maxbuffers"]), (&3.into(), &4.into()));
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.controller().status("all")["status"], "running");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "20 answers took {:?}", start.elapsed());
}

#[test]
fn a_crowd_that_takes_a_little_now_and_then_gives_way_before_one_that_pauses() {
    let daemon = Setup::new(Mode::Tls).set("buffers", 8).start();
    let mapping = daemon.add(&public_mapping(20, 0));
    let (pausing_agent, pausing) = pair_from(&daemon, &mapping, PAUSING);
    Payload::new(1).send_until_stalled(&pausing_agent);
    let crowd: Vec<_> = (0..12).map(|_| pair_from(&daemon, &mapping, CROWD)).collect();
    let (agent, user) = pair_from(&daemon, &mapping, HONEST);
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        for (agent, user) in &crowd {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
            // Less than a record in ten seconds, but never nothing.
            scope.spawn(|| {
                for _ in 0..160 {
                    if !running.load(Ordering::Relaxed) || !user.skip_raw(500).is_ok_and(|count| count > 0) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(500));
                }
            });
        }
        let sending = scope.spawn(|| Payload::new(10).send(&agent, 4 << 20));
        let start = Instant::now();
        Payload::new(10).receive(&user, 4 << 20);
        assert!(start.elapsed() < Duration::from_secs(40), "it took {:?}", start.elapsed());
        sending.join().expect("it was sent");
        // The crowd holds what it can get until it is ended: its own others wait.
        // The log names a user of it or an agent.
        let is_ended = || daemon.log().contains("the stalled connection of");
        wait_until("the crowd gives way", Duration::from_secs(40), is_ended);
        running.store(false, Ordering::Relaxed);
    });
    let log = daemon.log();
    assert!(!log.contains("the stalled connection of 127.0.0.3:"), "{log}");
    // Nor was it the one that reads.
    agent.send(b"more");
    user.expect(b"more");
    // It was no more than slow: what was sent for it is still coming.
    assert!(matches!(pausing.hear(PATIENCE), Heard::Message(_)));
}

#[test]
fn small_messages_go_on_while_a_crowd_of_slow_readers_waits_for_buffers() {
    for_both_modes(|mode| {
        let daemon = Setup::new(mode).set("buffers", 8).start();
        let [crowded, mapping] = [20, 3].map(|agents| daemon.add(&public_mapping(agents, 0)));
        let (agent, user) = pair_from(&daemon, &mapping, HONEST);
        let crowd: Vec<_> = (0..12).map(|_| pair_from(&daemon, &crowded, CROWD)).collect();
        thread::scope(|scope| {
            for (agent, _) in &crowd {
                scope.spawn(|| Payload::new(9).send_until_stalled(agent));
            }
        });
        // Ten seconds after the beginning of this some of the crowd will be ended.
        let start = Instant::now();
        for _ in 0..20 {
            user.send(b"question");
            agent.expect(b"question");
            agent.send(b"answer");
            user.expect(b"answer");
        }
        let (agent, user) = pair_from(&daemon, &mapping, HONEST);
        agent.send(b"answer");
        user.expect(b"answer");
        assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    });
}

#[test]
fn a_user_that_waits_for_a_buffer_is_not_closed_as_if_no_agent_were_there() {
    // So few that none are set aside.
    let daemon = Setup::new(Mode::Tls).set("buffers", 2).start();
    let [crowded, mapping] = [4, 1].map(|agents| daemon.add(&public_mapping(agents, 0)));
    let crowd: Vec<_> = (0..4).map(|_| pair_from(&daemon, &crowded, CROWD)).collect();
    thread::scope(|scope| {
        for (agent, _) in &crowd {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
        }
    });
    let (agent, user) = (daemon.agent(&mapping), daemon.user(&mapping));
    user.send(b"question");
    if agent.hear(SILENCE) == Heard::Silence {
        assert_eq!(user.hear(Duration::from_secs(6)), Heard::Silence, "it is closed after 5 s");
        // Who holds a buffer is ended after 10 s.
        agent.expect(b"question");
    }
    agent.send(b"answer");
    user.expect(b"answer");
    drop(crowd);
}
