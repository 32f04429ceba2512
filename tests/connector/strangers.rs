//! Who has not shown a passcode, or has grown silent: deadlines, crowds and the brake on guesses.

use crate::harness::{
    Daemon, End, Heard, Mapping, Mode, PATIENCE, Peer, SILENCE, Setup, in_both_modes, public_mapping,
};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Waits for the end, which must come between `earliest` and `earliest` and as much again.
#[track_caller]
fn expect_end_after(peer: &Peer, earliest: Duration) {
    let start = Instant::now();
    match peer.hear(earliest * 2 + PATIENCE) {
        Heard::Ended(_) => {}
        other => panic!("expected the end, got {other:?}"),
    }
    let took = start.elapsed();
    assert!(took >= earliest && took < earliest * 2 + 2 * SECOND, "ended after {took:?}, not {earliest:?}");
}

#[test]
fn strangers_have_ten_seconds() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let waits = Duration::from_secs(9); // 10, less what connecting took
        thread::scope(|scope| {
            scope.spawn(|| expect_end_after(&daemon.stranger(&mapping, 0), waits));
            scope.spawn(|| expect_end_after(&without_handshake(daemon, &mapping), waits));
            scope.spawn(|| {
                let half = daemon.stranger(&mapping, 1);
                half.send(&mapping.passcodes[1].as_bytes()[..18]);
                expect_end_after(&half, waits);
            });
            scope.spawn(|| {
                // A byte a second does not buy time.
                let slow = daemon.stranger(&mapping, 1);
                let start = Instant::now();
                let passcode = mapping.passcodes[1].as_bytes();
                let ended = passcode.iter().any(|byte| {
                    let _ = slow.try_send(&[*byte], PATIENCE);
                    matches!(slow.hear(SECOND), Heard::Ended(_))
                });
                assert!(ended, "a passcode may take {:?}", start.elapsed());
                assert!(start.elapsed() >= waits, "ended after {:?}", start.elapsed());
            });
        });
    });
}

/// A connection that never begins its TLS handshake, in TLS mode.
fn without_handshake(daemon: &Daemon, mapping: &Mapping) -> Peer {
    daemon.dial(mapping.ports[1]).without_tls().connect().expect("a connection")
}

#[test]
fn the_sixty_fifth_stranger_pushes_out_the_oldest() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let connect = || daemon.dial(mapping.ports[0]).without_tls().connect().expect("a connection");
        let oldest = connect();
        let others: Vec<Peer> = (0..63).map(|_| connect()).collect();
        oldest.expect_silence();
        let agent = daemon.agent(&mapping);
        oldest.expect_end();
        others[0].expect_silence();
        agent.expect_silence();
    });
}

#[test]
fn a_crowd_pushes_out_its_own_and_not_who_comes_from_elsewhere() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let [agents, users] = mapping.ports;
    let ports = [(agents, 64), (users, 256), (daemon.ports.api(), 32), (daemon.ports.broker(), 64)];
    let crowded = ports.map(|(port, most)| {
        let first = daemon.dial(port).connect().expect("a connection");
        let dial = daemon.dial(port).from([127, 0, 0, 2]);
        let crowd: Vec<Peer> = (0..most + 20).map(|_| dial.connect().expect("a connection")).collect();
        crowd[0].expect_end();
        (first, crowd)
    });
    crowded.iter().for_each(|(first, _)| first.expect_silence());
    crowded[0].0.authorize(&mapping, 0);
}

#[test]
fn strangers_take_no_agents_place() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let strangers: Vec<Peer> = (0..10).map(|_| daemon.stranger(&mapping, 0)).collect();
        let (agent, user) = daemon.pair(&mapping);
        agent.send(b"answer");
        user.expect(b"answer");
        strangers[0].expect_silence(); // and are given nothing that users send
    });
}

#[test]
fn guessing_passcodes_is_braked_to_one_a_second() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let guess = || {
            let stranger = daemon.stranger(&mapping, 0);
            // The brake may hold the connection back before its TLS handshake, or take it and answer late.
            stranger.send("x".repeat(36).as_bytes());
            stranger.expect_end();
        };
        (0..5).for_each(|_| guess());
        let braked = Instant::now();
        (0..4).for_each(|_| guess());
        let took = braked.elapsed();
        assert!(took >= 2 * SECOND, "nine guesses were answered, the last four in {took:?}");

        let elsewhere = daemon.dial(mapping.ports[0]).from([127, 0, 0, 2]).connect().expect("a connection");
        let start = Instant::now();
        elsewhere.authorize(&mapping, 0);
        assert!(start.elapsed() < 10 * SECOND, "the brake is on for another address, too");
        daemon.agent(&mapping); // late, but the right passcode still opens
    });
}

#[test]
fn an_agent_that_falls_silent_is_closed_and_its_user_with_it() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&public_mapping(3, 1500));
        let (joined, user) = daemon.pair(&mapping);
        let free = daemon.agent(&mapping);
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| free.expect_end());
            scope.spawn(|| joined.expect_end());
            // Not a proper end: nobody knows what the agent would have said.
            scope.spawn(|| assert_ne!(user.expect_end(), End::Clean));
        });
        let took = start.elapsed();
        assert!(took >= SECOND && took < 10 * SECOND, "closed after {took:?} instead of 1.5 s");
    });
}

#[test]
fn heartbeats_keep_an_agent() {
    in_both_modes(|daemon| {
        let agent = daemon.agent(&daemon.add(&public_mapping(1, 3000)));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(7) {
            agent.send(b"BEAT");
            agent.expect_message(b"BEAT");
            assert_eq!(agent.hear(SILENCE), Heard::Silence); // the pause between two heartbeats
        }
    });
}

#[test]
fn an_agent_may_be_silent_for_ever_with_threshold_zero() {
    let daemon = Setup::new(Mode::Plain).start();
    let agent = daemon.agent(&daemon.add(&public_mapping(1, 0)));
    assert_eq!(agent.hear(3 * SECOND), Heard::Silence); // three scans for deadlines
}
