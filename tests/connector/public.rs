//! Public pipes: whom a user is joined to, and how the two end (docs/protocol.md, "Public pipe").

use crate::harness::{
    Heard, Mode, PATIENCE, Payload, Peer, Setup, beat, in_both_modes, in_both_versions, in_both_versions_plain, join,
    public_mapping, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_user_holds_no_agent() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.agent(&mapping);
        let idle: Vec<Peer> = (0..5).map(|_| daemon.user(&mapping)).collect();
        let served = daemon.user(&mapping);
        join(&agent, &served);
        idle[0].expect_silence();
        served.reset();
        agent.expect_end();
        join(&daemon.agent(&mapping), &idle[4]);
    });
}

#[test]
fn users_get_the_agent_that_has_been_free_longest() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let agents: Vec<Peer> = (0..4).map(|_| daemon.agent(&mapping)).collect();
        let users: Vec<Peer> = agents.iter().map(|_| daemon.user(&mapping)).collect();
        // The users speak in another order than they connected in: only the first byte counts.
        for (agent, user) in agents.iter().zip(users.iter().rev()) {
            join(agent, user);
        }
    });
}

#[test]
fn a_user_waits_for_an_agent_and_loses_nothing() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let [first, second] = [daemon.user(&mapping), daemon.user(&mapping)];
        first.send(b"first");
        if daemon.mode == Mode::Tls {
            // A handshake after it: what the first user said has been read by then.
            drop(daemon.user(&mapping));
        }
        second.send(b"second");
        let agent = daemon.agent(&mapping);
        agent.expect(b"first");
        daemon.agent(&mapping).expect(b"second");
        agent.send(b"answer");
        first.expect(b"answer");
    });
}

#[test]
fn what_a_waiting_user_sends_is_kept_in_order_and_in_bounds() {
    in_both_versions(|daemon, version| {
        let mapping = daemon.add_public(1);
        let user = daemon.dial(mapping.ports[1]).small_buffers().connect().expect("a connection");
        let mut sent = Payload::new(7);
        sent.send_until_stalled(&user);
        let agent = daemon.agent_of(version, &mapping);
        thread::scope(|scope| {
            scope.spawn(|| user.flush());
            Payload::new(7).receive(&*agent, sent.position());
        });
    });
}

#[test]
fn a_user_waits_five_seconds_at_most() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(3);
        let user = daemon.user(&mapping);
        let start = Instant::now();
        user.send(b"anybody there?");
        user.expect_end();
        let took = start.elapsed();
        assert!(took >= 4 * SECOND && took < 12 * SECOND, "closed after {took:?} instead of 5 s");
    });
}

#[test]
fn what_a_broken_user_said_reaches_no_agent_of_another() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let broken = daemon.user(&mapping);
        broken.send(b"half a request");
        match daemon.mode {
            // A record that no key has sealed.
            Mode::Tls => broken.send_raw(&[23, 3, 3, 0, 1, 0]).expect("a connection"),
            Mode::Plain => broken.reset(),
        }
        let agent = daemon.agent(&mapping);
        let next = daemon.user(&mapping);
        match agent.hear(SECOND) {
            Heard::Silence => next.send(b"next"),
            Heard::Message(_) => {
                agent.expect_end();
                next.send(b"next");
                return daemon.agent(&mapping).expect(b"next");
            }
            Heard::Ended(_) => panic!("the agent was closed for nothing"),
        }
        agent.expect_message(b"next");
    });
}

#[test]
fn the_257th_waiting_user_pushes_out_the_oldest() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let ask = |i: usize| {
        let user = daemon.user(&mapping);
        user.send(format!("user {i:03}").as_bytes());
        user
    };
    let users: Vec<Peer> = (0..257).map(ask).collect();
    wait_until("256 users wait", PATIENCE, || daemon.controller().status(&mapping.id)["waiting"] == 256);
    users[0].expect_end();
    daemon.agent(&mapping).expect(b"user 001");
}

#[test]
fn the_257th_silent_user_pushes_out_the_oldest() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let oldest = daemon.user(&mapping);
    let others: Vec<Peer> = (0..255).map(|_| daemon.user(&mapping)).collect();
    oldest.expect_silence();
    let newest = daemon.user(&mapping);
    oldest.expect_end();
    others[0].expect_silence();
    join(&daemon.agent(&mapping), &newest);
}

#[test]
fn an_agent_serves_one_user_once() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let (served, user) = daemon.pair(&mapping);
        let fresh = daemon.agent(&mapping);
        user.reset();
        served.expect_end();
        let next = daemon.user(&mapping);
        join(&fresh, &next);
        let _ = served.try_send(b"late bytes of the first answer", PATIENCE);
        next.expect_silence();
    });
}

#[test]
fn a_users_reset_ends_the_agent_at_once() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        let start = Instant::now();
        user.reset();
        agent.expect_end();
        assert!(start.elapsed() < 5 * SECOND, "took {:?}", start.elapsed());
    });
}

#[test]
fn when_the_agent_ends_all_it_sent_reaches_the_user_before_the_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.agent(&mapping);
        let user = daemon.dial(mapping.ports[1]).small_buffers().connect().expect("a connection");
        join(&agent, &user);
        let total = 3 << 20;
        thread::scope(|scope| {
            scope.spawn(|| {
                Payload::new(2).send(&agent, total);
                agent.finish();
            });
            // A reader that begins late, so that the end overtakes the bytes if it can.
            thread::sleep(SECOND / 4);
            let mut received = Payload::new(2);
            received.receive(&user, total);
            user.expect_clean_end();
        });
    });
}

#[test]
fn a_free_agent_that_ends_is_never_given_a_user() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(3);
        let [gone, reset, stays] = [0; 3].map(|_| daemon.agent(&mapping));
        gone.finish();
        gone.expect_end();
        reset.reset();
        join(&stays, &daemon.user(&mapping));
    });
}

#[test]
fn an_agent_that_ends_in_the_very_turn_is_not_given_a_user() {
    in_both_modes(|daemon| {
        for round in 0..5 {
            let mapping = daemon.add_public(3);
            let [gone, other, stays] = [0; 3].map(|_| daemon.agent(&mapping));
            let user = daemon.user(&mapping);
            // The daemon hears of all of it at once, and of the user first.
            daemon.freeze();
            user.send(b"hello");
            other.reset();
            match daemon.mode {
                Mode::Tls if round % 2 == 0 => gone.notify(),
                _ => gone.finish(),
            }
            gone.wait_until_acknowledged();
            daemon.thaw();
            stays.expect(b"hello");
        }
    });
}

#[test]
fn a_half_closed_user_still_gets_its_answer() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    for _ in 0..20 {
        let agent = daemon.agent(&mapping);
        let user = daemon.user(&mapping);
        user.send(b"question");
        user.finish();
        agent.expect(b"question");
        thread::scope(|scope| {
            scope.spawn(|| {
                Payload::new(3).send(&agent, 200_000);
                agent.finish();
            });
            Payload::new(3).receive(&user, 200_000);
            user.expect_clean_end();
        });
    }
}

#[test]
fn a_half_closed_user_and_a_silent_agent_end_after_ten_seconds() {
    let daemon = Setup::new(Mode::Plain).start();
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    let start = Instant::now();
    user.finish();
    user.expect_clean_end();
    let took = start.elapsed();
    agent.expect_end();
    assert!(took >= 9 * SECOND && took < 20 * SECOND, "ended after {took:?} instead of 10 s");
}

#[test]
fn a_half_closed_user_gives_way_to_one_who_waits() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let (agent, user) = daemon.pair(&mapping);
    user.finish();
    let waiting = daemon.user(&mapping);
    let start = Instant::now();
    waiting.send(b"hello");
    user.expect_clean_end();
    assert!(start.elapsed() < 4 * SECOND, "took {:?} instead of 200 ms", start.elapsed());
    drop(agent);
    daemon.agent(&mapping).expect(b"hello");
}

#[test]
fn over_tls_a_users_close_notify_is_the_end() {
    let daemon = Setup::new(Mode::Tls).start();
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    let start = Instant::now();
    user.send(b"the last words");
    user.finish();
    agent.expect(b"the last words");
    agent.expect_end();
    assert!(start.elapsed() < 5 * SECOND, "took {:?}", start.elapsed());
}

#[test]
fn back_pressure_reaches_either_sender_and_nothing_is_lost() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        for user_sends in [true, false] {
            let (agent, user) = daemon.narrow_pair(&mapping);
            let (from, to) = if user_sends { (&user, &agent) } else { (&agent, &user) };
            let mut sent = Payload::new(4);
            sent.send_until_stalled(from);
            thread::scope(|scope| {
                scope.spawn(|| from.flush());
                Payload::new(4).receive(to, sent.position());
            });
        }
    });
}

#[test]
fn what_an_agent_sent_before_its_reset_is_delivered() {
    let daemon = Setup::new(Mode::Plain).start();
    let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
    // The agent answers and leaves before it has read the whole question: bytes stand in every buffer there is.
    Payload::new(8).send_until_stalled(&user);
    let mut answer = Payload::new(9);
    answer.send_until_stalled(&agent);
    agent.reset();
    let mut received = Payload::new(9);
    while let Heard::Message(bytes) = user.hear(PATIENCE) {
        received.check(&bytes);
    }
    // What was still in the agent's own small buffer went with it.
    let lost = answer.position() - received.position();
    assert!(lost < 256 << 10, "{lost} of {} bytes are lost", answer.position());
}

#[test]
fn a_stalled_agent_is_not_taken_for_dead() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&public_mapping(1, 1000));
        let (agent, user) = daemon.narrow_pair(&mapping);
        let mut sent = Payload::new(5);
        sent.send_until_stalled(&agent);
        // Its heartbeats would stand behind its data: three thresholds long nobody can hear it.
        assert_eq!(agent.hear(3 * SECOND), Heard::Silence);
        thread::scope(|scope| {
            scope.spawn(|| agent.flush());
            Payload::new(5).receive(&user, sent.position());
        });
    });
}

#[test]
fn an_agent_that_does_not_read_lives_by_its_heartbeats() {
    // Over TLS only: the answers to the heartbeats must be told from the payload between them.
    let daemon = Setup::new(Mode::Tls).start();
    let (agent, user) = daemon.narrow_pair(&daemon.add(&public_mapping(1, 2500)));
    let beating = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| beat(|| agent.send(b"BEAT"), &beating));
        let mut sent = Payload::new(6);
        sent.send_until_stalled(&user);
        assert_eq!(user.hear(5 * SECOND), Heard::Silence); // twice the threshold
        scope.spawn(|| user.flush());
        let mut received = Payload::new(6);
        while received.position() < sent.position() {
            let record = agent.expect_some();
            if record != b"BEAT" {
                received.check(&record);
            }
        }
        beating.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_stalled_user_does_not_keep_the_place_of_an_agent_that_is_gone() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let (agent, _stalled) = daemon.narrow_pair(&mapping);
        Payload::new(9).send_until_stalled(&agent);
        agent.reset();
        // The end is kept for the user as long as it takes something once a minute.
        wait_until("the agent's place is free", 90 * SECOND, || daemon.controller().status(&mapping.id)["agents"] == 0);
        daemon.agent(&mapping);
    });
}

#[test]
fn a_stalled_user_of_an_agent_that_has_said_its_last_word_has_a_minute() {
    // close_notify and no FIN: TCP knows nothing of this end.
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let (agent, _stalled) = daemon.narrow_pair(&mapping);
    Payload::new(9).send(&agent, 30_000);
    agent.notify();
    wait_until("the agent's place is free", 5 * SECOND, || daemon.controller().status(&mapping.id)["agents"] == 0);
    let connections = || daemon.controller().status("all")["connections"].as_u64();
    wait_until("all are closed", 80 * SECOND, || connections() == Some(0));
}

#[test]
fn urgent_data_is_passed_on_like_any_other() {
    in_both_versions_plain(|daemon, version| {
        let (agent, user) = daemon.pair_of(version, &daemon.add_public(1));
        // All of it is there before the daemon looks: one event tells of it.
        daemon.freeze();
        user.send(b"before");
        user.send_urgent(b'!');
        user.send(b"behind");
        daemon.thaw();
        agent.expect(b"before!behind");
    });
}

#[test]
fn an_agent_that_takes_no_more_is_heard_to_the_end() {
    in_both_modes(|daemon| {
        // What the agent's own kernel has not sent yet is lost with it; its buffer is small.
        const LOST_WITH_AGENT: u64 = 256 * 1024;
        let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
        let mut sent = Payload::new(4);
        sent.send_until_stalled(&agent);
        let mut heard = Payload::new(4);
        thread::scope(|scope| {
            let flush = scope.spawn(|| agent.flush());
            // Most of what the agent has sent is with the daemon, which has not read all of it yet.
            while heard.position() < 200_000 || !flush.is_finished() {
                match user.hear(Duration::from_millis(10)) {
                    Heard::Message(bytes) => heard.check(&bytes),
                    Heard::Silence => {}
                    Heard::Ended(end) => panic!("{end:?} after {} bytes", heard.position()),
                }
            }
        });
        // It is with the daemon and its kernel by far, and has still to be delivered.
        let unread = sent.position() - heard.position();
        assert!(unread > 2 * LOST_WITH_AGENT, "only {unread} bytes are left to be heard");
        thread::sleep(SECOND);
        agent.finish();
        drop(agent);
        for _ in 0..3 {
            thread::sleep(SECOND / 10);
            // Once everything is with the user, the broken session ends with a reset.
            let _ = user.try_send(b"more", PATIENCE);
        }
        while heard.position() + LOST_WITH_AGENT < sent.position() {
            heard.check(&user.expect_some());
        }
        user.expect_end_at_last(PATIENCE);
    });
}

/// A small window that data flows through all the time, as embedded devices have it. The kernel counts it as closed.
#[test]
fn a_slow_reader_with_a_small_window_is_served_for_as_long_as_it_reads() {
    let daemon = Setup::new(Mode::Plain).start();
    let (agent, user) = daemon.narrow_pair(&daemon.add_public(1));
    let [mut sent, mut heard] = [Payload::new(1), Payload::new(1)];
    agent.send_within(&sent.take(1 << 20), SECOND);
    for _ in 0..150 {
        user.expect(&heard.take(1500));
        thread::sleep(Duration::from_millis(100)); // how slow it is
    }
}
