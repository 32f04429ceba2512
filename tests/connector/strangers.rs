//! Who has not shown a passcode, or has grown silent: deadlines, crowds, and what wrong passcodes get.

use crate::harness::{
    Daemon, End, Heard, Mapping, Mode, PATIENCE, Peer, SILENCE, Setup, in_both_modes, public_mapping, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
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
fn a_fleet_behind_one_address_comes_back_under_a_crowd_of_silent_addresses() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(40);
        let dial = |from| daemon.dial(mapping.ports[0]).from([127, 0, 1, from]).without_tls();
        let silent = |from| dial(from).connect().expect("a connection");
        let fleet = daemon.dial(mapping.ports[0]).from([127, 0, 0, 2]);
        let first = fleet.connect().expect("a connection");
        first.authorize(&mapping, 0);
        let _crowd: Vec<Peer> = (0..60).map(|i| silent(1 + i % 30)).collect();
        let agents: Vec<Peer> = (0..30).map(|_| fleet.connect().expect("a connection")).collect();
        // The crowd comes again, and takes its own places.
        let _again: Vec<Peer> = (0..20).map(|_| silent(1)).collect();
        agents.iter().for_each(|agent| agent.authorize(&mapping, 0));
        // And a fleet keeps nobody else out.
        let single = daemon.dial(mapping.ports[0]).from([127, 0, 0, 3]).connect().expect("a connection");
        let _fleet: Vec<Peer> = (0..80).map(|_| fleet.clone().without_tls().connect().expect("a connection")).collect();
        single.authorize(&mapping, 0);
    });
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

/// How long a wrong passcode at port1 waits for its end.
fn guess(daemon: &Daemon, mapping: &Mapping) -> Duration {
    let stranger = daemon.stranger(mapping, 0);
    let start = Instant::now();
    stranger.send("x".repeat(36).as_bytes());
    stranger.expect_end();
    start.elapsed()
}

#[test]
fn a_wrong_passcode_is_answered_late_and_a_right_one_at_once() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        assert!(guess(daemon, &mapping) >= SECOND * 9 / 10);
        // Of many at once the last waits longest.
        let waits: Vec<Duration> = thread::scope(|scope| {
            let guesses: Vec<_> = (0..6).map(|_| scope.spawn(|| guess(daemon, &mapping))).collect();
            daemon.agent(&mapping);
            guesses.into_iter().map(|guess| guess.join().expect("the end")).collect()
        });
        let longest = waits.iter().max().expect("six");
        assert!(*longest >= 4 * SECOND, "{waits:?}");
    });
}

/// A client with a passcode that is not valid any more, and that redials as soon as it is closed.
fn redial_at_once(daemon: &Daemon, mapping: &Mapping, passcode: &str, running: &AtomicBool) {
    while running.load(Ordering::Relaxed) {
        let stale = daemon.stranger(mapping, 0);
        stale.send(passcode.as_bytes());
        while running.load(Ordering::Relaxed) && stale.hear(SECOND / 10) == Heard::Silence {}
    }
}

#[test]
fn stale_agents_that_redial_at_once_do_not_make_honest_ones_wait() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(10);
        let rejected = || daemon.controller().status(&mapping.id)["rejected"].as_u64().expect("a number");
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            for i in 0..60 {
                // Some from an older mapping than others.
                let (passcode, running, mapping, daemon) = (format!("{:036}", i % 7), &running, &mapping, &*daemon);
                scope.spawn(move || redial_at_once(daemon, mapping, &passcode, running));
            }
            let _stop = Stop(&running);
            wait_until("all have been rejected", 2 * PATIENCE, || rejected() >= 60);
            let (before, cpu, start) = (rejected(), daemon.cpu_time(), Instant::now());
            let mut longest = Duration::ZERO;
            while start.elapsed() < 10 * SECOND {
                let dialled = Instant::now();
                daemon.agent(&mapping);
                longest = longest.max(dialled.elapsed());
                thread::sleep(SECOND); // so that the figures are mostly those of the others
            }
            let (rejected, took) = (rejected() - before, start.elapsed());
            let percent = 100.0 * (daemon.cpu_time() - cpu).as_secs_f64() / took.as_secs_f64();
            println!(
                "{:?}: {rejected} rejected in {took:.1?}, {percent:.1} % CPU, an honest agent waited {longest:?}",
                daemon.mode
            );
            // Six a second: 60 that wait for 10 s each.
            assert!(rejected <= 120, "{rejected} rejected in {took:?}");
            assert!(longest < 5 * SECOND, "an honest agent waited {longest:?}");
        });
    });
}

/// Ends what waits for `running` to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn different_passcodes_are_compared_one_a_second() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let show = |from: [u8; 4], passcode: &str| {
        let agent = daemon.dial(mapping.ports[0]).from(from).connect().expect("a connection");
        agent.send(passcode.as_bytes());
        agent
    };
    let guesser = [127, 0, 0, 2];
    // 64 at once, and the next ones are in line for a turn each second. Even the right one waits for its turn.
    let start = Instant::now();
    let guesses: Vec<Peer> = (0..67).map(|i| show(guesser, &format!("{i:036}"))).collect();
    wait_until("they are in line", PATIENCE, || daemon.controller().status(&mapping.id)["rejected"] == 64);
    let right = show(guesser, &mapping.passcodes[0]);
    show([127, 0, 0, 3], &mapping.passcodes[0]).expect_message(b"AUTHORIZED");
    show(guesser, &format!("{:036}", 1)).expect_silence(); // a stale one does not wait for its turn, but for its end
    right.expect_message(b"AUTHORIZED");
    let took = start.elapsed();
    assert!(took >= 3 * SECOND && took < 10 * SECOND, "the 68th passcode was compared after {took:?}");
    drop(guesses);
}

#[test]
fn connections_that_are_given_up_are_limited() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let restless = daemon.dial(mapping.ports[0]).from([127, 0, 0, 2]);
    // 256 are taken at once, and 50 a second: the next one is not looked at, or waits for its turn, half a second long.
    let is_limited = || {
        let start = Instant::now();
        for _ in 0..600 {
            restless.connect().expect("a connection").finish();
        }
        let (again, asked) = (restless.connect().expect("a connection"), Instant::now());
        let is_in_time = start.elapsed() < 4 * SECOND;
        let _ = again.try_send(mapping.passcodes[0].as_bytes(), PATIENCE);
        let is_let_in = matches!(again.hear(PATIENCE), Heard::Message(_));
        let waited = asked.elapsed();
        assert!(!is_in_time || !is_let_in || waited > SECOND / 5, "let in after {waited:?}");
        is_in_time
    };
    assert!((0..5).any(|_| is_limited()), "600 connections took 4 s and more, five times: nothing was tested");
    daemon.agent(&mapping);
    let let_in = || {
        let agent = restless.connect().expect("a connection");
        agent.try_send(mapping.passcodes[0].as_bytes(), PATIENCE).is_ok()
            && matches!(agent.hear(PATIENCE), Heard::Message(_))
    };
    wait_until("it is let in again", PATIENCE, let_in);
}

#[test]
fn a_passcode_that_is_too_short_is_logged_and_counted() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        for _ in 0..5 {
            let short = daemon.stranger(&mapping, 0);
            short.send(&mapping.passcodes[0].as_bytes()[..35]);
            short.finish();
            short.expect_end();
        }
        let rejected = || daemon.controller().status(&mapping.id)["rejected"].clone();
        wait_until("all are counted", PATIENCE, || rejected() == 5);
        let log = daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("35 of 36 bytes")).collect();
        assert!(lines.len() == 1 && lines[0].contains("agent 127.0.0.1"), "{lines:?}");
    });
}

#[test]
fn rejected_connections_cost_little_more_than_their_sockets() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        guess(daemon, &mapping); // what is allocated once is there
        let before = daemon.resident_kib();
        let show = |i: usize| {
            let from = [127, 0, 1, (i / 64) as u8];
            let stale = daemon.dial(mapping.ports[0]).from(from).connect().expect("a connection");
            stale.send("x".repeat(36).as_bytes());
            stale
        };
        // Those that the first have made way for count, too: there are 512 places.
        let held: Vec<Peer> = (0..400).map(show).collect();
        wait_until("all are rejected", PATIENCE, || daemon.controller().status(&mapping.id)["rejected"] == 401);
        let grown = daemon.resident_kib().saturating_sub(before);
        println!("{:?}: {grown} KiB more for {} rejected connections", daemon.mode, held.len());
        assert!(grown < 400 * 4, "{grown} KiB more"); // with their TLS it would be 24 KiB each in a debug build
    });
}

#[test]
fn removing_a_mapping_closes_who_was_rejected_there() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let held: Vec<Peer> = (0..10).map(|_| daemon.stranger(&mapping, 0)).collect();
        held.iter().for_each(|stale| stale.send("x".repeat(36).as_bytes()));
        wait_until("all are rejected", PATIENCE, || daemon.controller().status(&mapping.id)["rejected"] == 10);
        daemon.controller().remove(&mapping);
        assert_eq!(daemon.controller().status("all")["connections"], 0);
        assert!(matches!(held[9].hear(SECOND), Heard::Ended(_)));
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
