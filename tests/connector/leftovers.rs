//! Agents as they are in the field, whose user leaves in mid-answer: the rest of it comes with their next connection.

use crate::harness::{Daemon, End, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, in_both_modes, join};
use std::thread;
use std::time::{Duration, Instant};

/// What the agent sends first on its new connection.
const REST: [&[u8]; 3] = [b"the rest", b" of an answer", b" that nobody waits for"];

/// An agent whose user has left in the middle of a large answer. Returns the end as the agent saw it.
fn abandon(daemon: &Daemon, mapping: &Mapping) -> End {
    let (agent, user) = daemon.narrow_pair(mapping);
    Payload::new(1).send_until_stalled(&agent);
    user.reset();
    agent.expect_end_at_last(PATIENCE)
}

/// Dials again at once, and flushes what is left, as Core Networking does.
fn redial(daemon: &Daemon, mapping: &Mapping, side: usize) -> Peer {
    let agent = daemon.agent_on(mapping, side);
    for piece in REST {
        agent.send(piece);
        thread::sleep(Duration::from_millis(20));
    }
    agent
}

#[test]
fn the_rest_of_an_abandoned_answer_reaches_no_other_user() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        for delay in [0, 50, 200] {
            abandon(daemon, &mapping);
            let user = daemon.user(&mapping);
            thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    thread::sleep(Duration::from_millis(delay));
                    user.send(b"question");
                });
                let agent = redial(daemon, &mapping, 0);
                agent.expect(b"question");
                asking.join().expect("it was sent");
                agent.send(b"answer");
                user.expect(b"answer");
                agent.finish();
                user.expect_clean_end();
            });
        }
        let status = daemon.controller().status(&mapping.id);
        assert_eq!(status["unsettled"], 3, "{status}");
        assert_eq!(status["discarded"], 3 * REST.concat().len() as u64, "{status}");
    });
}

/// An agent whose service says a little now and then, and whose user leaves while nothing is on its way. It ends when it
/// hears of that.
fn abandon_paced(daemon: &Daemon, mapping: &Mapping, leave: impl Fn(Peer)) {
    let (agent, user) = daemon.pair(mapping);
    for _ in 0..4 {
        agent.send(b"a piece");
        user.expect(b"a piece");
        thread::sleep(Duration::from_millis(50));
    }
    agent.send(b"a piece");
    user.expect(b"a piece");
    leave(user);
    while matches!(agent.hear(Duration::from_millis(50)), Heard::Silence | Heard::Message(_)) {
        let _ = agent.try_send(b"a piece", PATIENCE);
    }
}

#[test]
fn the_rest_of_a_paced_answer_reaches_no_other_user() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let leavings: [fn(Peer); 2] = [Peer::reset, |user| {
            user.finish();
            drop(user);
        }];
        for leave in leavings {
            abandon_paced(daemon, &mapping, leave);
            let user = daemon.user(&mapping);
            user.send(b"question");
            let agent = daemon.agent(&mapping);
            assert_eq!(agent.hear(Duration::from_millis(100)), Heard::Silence, "it was joined at once");
            for piece in REST {
                agent.send(piece);
                assert_eq!(agent.hear(Duration::from_millis(50)), Heard::Silence, "it was joined too soon");
            }
            agent.expect(b"question");
            agent.send(b"answer");
            user.expect(b"answer");
            agent.finish();
            user.expect_clean_end();
        }
    });
}

#[test]
fn the_answer_to_a_user_that_gave_up_reaches_no_other_user() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let (agent, user) = daemon.pair(&mapping);
        user.finish();
        let next = daemon.user(&mapping);
        next.send(b"question");
        agent.expect_end();
        drop(agent);
        let agent = daemon.agent(&mapping);
        assert_eq!(agent.hear(Duration::from_millis(100)), Heard::Silence, "it was joined at once");
        agent.send(b"the late answer");
        agent.expect(b"question");
        agent.send(b"answer");
        next.expect(b"answer");
    });
}

#[test]
fn a_session_that_was_over_delays_nobody() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        // The quickest, since the machine may be busy; the first could not have been delayed.
        let mut shortest = Duration::MAX;
        for round in 0..10 {
            let start = Instant::now();
            let (agent, user) = daemon.pair(&mapping);
            if round > 0 {
                shortest = shortest.min(start.elapsed());
            }
            agent.send(b"answer");
            user.expect(b"answer");
            user.finish();
            if daemon.mode == Mode::Plain {
                agent.finish(); // the user might still have been waiting
            }
            agent.expect_end();
        }
        let status = daemon.controller().status(&mapping.id);
        assert_eq!(status["unsettled"], 0, "{status}");
        assert!(shortest < Duration::from_millis(240), "{shortest:?}");
    });
}

#[test]
fn who_sends_payload_while_it_is_free_is_joined_once_it_is_quiet() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let busy = daemon.agent(&mapping);
        busy.send(b"something");
        let user = daemon.user(&mapping);
        user.send(b"question");
        let mut last = Instant::now();
        for _ in 0..12 {
            last = Instant::now();
            busy.send(b"more");
            assert_eq!(busy.hear(Duration::from_millis(50)), Heard::Silence, "it is not quiet yet");
        }
        busy.expect(b"question");
        assert!((200..1000).contains(&last.elapsed().as_millis()), "{:?}", last.elapsed());
        busy.send(b"answer");
        user.expect(b"answer");
        // Another one, which is quiet, is not kept waiting.
        let [busy, quiet] = [daemon.agent(&mapping), daemon.agent(&daemon.add_public(1))];
        drop(quiet);
        busy.send(b"something");
        busy.expect_silence();
        join(&busy, &daemon.user(&mapping));
    });
}

#[test]
fn the_rest_of_a_message_reaches_no_other_peer() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let [left, right] = [0, 1].map(|side| {
            let agent = daemon.dial(mapping.ports[side]).small_buffers().connect().expect("a connection");
            agent.authorize(&mapping, side);
            agent
        });
        Payload::new(1).send_until_stalled(&left);
        let waiting = daemon.agent_on(&mapping, 1);
        right.reset();
        left.expect_end_at_last(PATIENCE);
        let again = redial(daemon, &mapping, 0);
        waiting.expect_silence();
        again.send(b"a new message");
        waiting.expect(b"a new message");
    });
}

#[test]
fn who_never_stops_sending_is_joined_on_a_private_pipe_all_the_same() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let [sender, receiver] = [daemon.agent_on(&mapping, 0), daemon.stranger(&mapping, 1)];
        let start = Instant::now();
        thread::scope(|scope| {
            let heard = scope.spawn(|| {
                thread::sleep(SILENCE);
                receiver.authorize(&mapping, 1);
                receiver.expect_some();
                start.elapsed()
            });
            while !heard.is_finished() {
                sender.send(b"again ");
                thread::sleep(Duration::from_millis(20));
            }
            assert!(heard.join().expect("a message").as_secs() < 6);
        });
    });
}
