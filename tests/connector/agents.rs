//! The agents' wire protocol: passcodes, heartbeats and records (docs/protocol.md, "The agent's wire protocol").

use crate::harness::{
    Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, in_both_modes, join, wait_until,
};
use std::thread;

#[test]
fn the_right_passcode_is_answered_authorized_and_nothing_else() {
    in_both_modes(|daemon| {
        for side in [0, 1] {
            // A mapping each: the two would be joined, and one would end with the other.
            let agent = daemon.agent_on(&daemon.add_private(1), side);
            agent.expect_silence();
        }
    });
}

#[test]
fn a_passcode_may_come_byte_by_byte() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.stranger(&mapping, 0);
        for byte in mapping.passcodes[0].bytes() {
            agent.send(&[byte]);
        }
        agent.expect_message(b"AUTHORIZED");
    });
}

#[test]
fn what_comes_right_behind_the_passcode_is_not_lost() {
    in_both_modes(|daemon| {
        for is_one_message in [true, false] {
            // One of its own: what comes soon after an early end may be what was left of that, and is discarded.
            let mapping = daemon.add_private(1);
            let passcode = mapping.passcodes[0].as_bytes();
            let whole = [passcode, b"payload"].concat();
            let messages = if is_one_message { vec![&whole[..]] } else { vec![passcode, b"payload"] };
            let listening = daemon.agent_on(&mapping, 1);
            let hasty = daemon.stranger(&mapping, 0);
            messages.iter().for_each(|message| hasty.send(message));
            hasty.expect_message(b"AUTHORIZED");
            listening.expect(b"payload");
            drop(hasty);
            listening.expect_end();
        }
    });
}

#[test]
fn a_heartbeat_in_the_same_message_as_the_passcode_is_answered() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let hasty = daemon.stranger(&mapping, 0);
        hasty.send(format!("{}BEAT", mapping.passcodes[0]).as_bytes());
        hasty.expect_message(b"AUTHORIZED");
        hasty.expect_message(b"BEAT");
    });
}

#[test]
fn a_wrong_passcode_gets_an_end_without_a_byte() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let all_but_one = format!("{}x", &mapping.passcodes[0][..35]);
        // The right passcode of the other side is wrong here, too.
        for wrong in [&"x".repeat(36), &all_but_one, &mapping.passcodes[1], &mapping.passcodes[0].to_uppercase()] {
            let stranger = daemon.stranger(&mapping, 0);
            stranger.send(wrong.as_bytes());
            stranger.expect_end();
        }
        daemon.agent(&mapping);
    });
}

#[test]
fn a_heartbeat_is_answered_and_never_forwarded() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        agent.send(b"BEAT");
        agent.expect_message(b"BEAT");
        user.expect_silence();
        agent.send(b"payload");
        user.expect(b"payload");
    });
}

#[test]
fn heartbeats_are_answered_whether_joined_or_not() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        let first = daemon.agent_on(&mapping, 0);
        first.send(b"BEAT");
        first.expect_message(b"BEAT");
        let second = daemon.agent_on(&mapping, 1);
        for agent in [&first, &second] {
            agent.send(b"BEAT");
            agent.expect_message(b"BEAT");
        }
    });
}

#[test]
fn heartbeats_that_ran_together_are_as_many() {
    let daemon = Setup::new(Mode::Plain).start();
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    agent.send(b"BEATBEAT");
    agent.expect(b"BEATBEAT");
    user.expect_silence();
    let mapping = daemon.add_public(1);
    let free = daemon.agent(&mapping);
    free.send(&b"BEAT".repeat(7)); // nobody is there who could lose payload
    free.expect(&b"BEAT".repeat(7));
}

#[test]
fn more_beats_than_anybody_sends_at_once_are_payload() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        // In dev mode two may have run together, and TCP may cut a long run anywhere.
        let counts: &[usize] = if daemon.mode == Mode::Tls { &[2, 3, 7, 4096] } else { &[3, 7] };
        for &beats in counts {
            agent.send(&b"BEAT".repeat(beats));
            user.expect(&b"BEAT".repeat(beats));
        }
        agent.expect_silence();
    });
}

#[test]
fn a_message_that_only_contains_a_heartbeat_is_payload() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        for payload in ["BEATx", "xBEAT", "BEATBEATB", "beat", "BEA", "BEAT\n", "BEATBEAT "] {
            agent.send(payload.as_bytes());
            user.expect(payload.as_bytes());
        }
        agent.expect_silence();
    });
}

/// Sizes that are easy to get wrong: the smallest and largest record, what fills a buffer exactly, and in between.
const RECORDS: [usize; 14] = [1, 1, 2, 16_384, 1, 16_384, 16_384, 16_384, 16_384, 16_383, 3, 100, 8_192, 5];

fn send_records(from: &Peer, rounds: usize) {
    let mut payload = Payload::new(1);
    for size in (0..rounds).flat_map(|_| RECORDS) {
        from.send(&payload.take(size));
    }
}

#[track_caller]
fn expect_records(at: &Peer, rounds: usize) {
    let mut payload = Payload::new(1);
    for size in (0..rounds).flat_map(|_| RECORDS) {
        let record = at.expect_some();
        assert_eq!(record.len(), size, "a record was merged or split at byte {}", payload.position());
        payload.check(&record);
    }
}

#[test]
fn one_record_in_is_one_record_out() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_private(1);
    let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    for (from, to) in [(&left, &right), (&right, &left), (&user, &agent), (&agent, &user)] {
        thread::scope(|scope| {
            scope.spawn(|| send_records(from, 10));
            expect_records(to, 10);
        });
    }
}

#[test]
fn new_keys_in_between_change_nothing() {
    let daemon = Setup::new(Mode::Tls).start();
    let (agent, user) = daemon.pair(&daemon.add_public(1));
    for from_and_to in [[&agent, &user], [&user, &agent]].repeat(3) {
        let [from, to] = from_and_to;
        send_records(from, 1);
        from.update_keys();
        expect_records(to, 1);
        send_records(to, 1);
        expect_records(from, 1);
    }
}

#[test]
fn records_keep_their_boundaries_under_back_pressure() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_private(1);
    let [left, right] = [0, 1].map(|side| {
        let agent = daemon.dial(mapping.ports[side]).small_buffers().connect().expect("a connection");
        agent.authorize(&mapping, side);
        agent
    });
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_records(&left, 40)); // 4.9 MB: far more than all buffers hold
        // Nobody reads for a while, so that the daemon is left with records it cannot get rid of.
        assert_eq!(left.hear(SILENCE), Heard::Silence);
        expect_records(&right, 40);
        sender.join().expect("all sent");
    });
}

#[test]
fn words_of_the_private_protocol_stay_apart_from_data() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_private(1);
    let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
    let message = [&b"the message"[..], b"TXEND"];
    for _ in 0..50 {
        message.iter().for_each(|record| left.send(record));
        message.iter().for_each(|record| right.expect_message(record));
        right.send(b"ACK");
        right.send(b"BEAT");
        right.expect_message(b"BEAT");
        left.expect_message(b"ACK");
    }
}

#[test]
fn payload_towards_an_agent_never_looks_like_a_heartbeat() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let (agent, user) = (daemon.agent(&mapping), daemon.user(&mapping));
    user.send(b"BEAT"); // as the first bytes of all, and later
    expect_two_halves(&agent, b"BEAT");
    for payload in [b"BEATBEAT".as_slice(), b"BEAT"] {
        user.send(payload);
        expect_two_halves(&agent, payload);
    }
    let mapping = daemon.add_private(1);
    let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
    left.send(b"BEATBEATx");
    right.expect_message(b"BEATBEATx");
}

#[track_caller]
fn expect_two_halves(agent: &Peer, payload: &[u8]) {
    let [first, second] = [agent.expect_some(), agent.expect_some()];
    assert_eq!([&first[..], &second].concat(), payload);
    for record in [first, second] {
        assert!(record != b"BEAT" && record != b"BEATBEAT", "the agent takes {record:?} for a heartbeat");
    }
}

#[test]
fn what_an_agent_says_to_nobody_is_dropped() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let agent = daemon.agent(&mapping);
        agent.send(b"to nobody");
        if daemon.mode == Mode::Tls {
            agent.send(b"BEAT"); // answered only after what was before it
            agent.expect_message(b"BEAT");
        }
        let user = daemon.user(&mapping);
        join(&agent, &user);
        agent.send(b"to the user");
        user.expect(b"to the user");
    });
}

#[test]
fn no_more_agents_than_maxconnections() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let [first, second] = [daemon.agent(&mapping), daemon.agent(&mapping)];
        let third = daemon.stranger(&mapping, 0);
        third.send(mapping.passcodes[0].as_bytes());
        third.expect_end();
        [&first, &second].iter().for_each(|agent| agent.expect_silence());
        drop(first);
        wait_until("the place is free again", PATIENCE, || let_in(daemon, &mapping));
    });
}

fn let_in(daemon: &Daemon, mapping: &Mapping) -> bool {
    let agent = daemon.stranger(mapping, 0);
    agent.send(mapping.passcodes[0].as_bytes());
    agent.hear(PATIENCE) == Heard::Message(b"AUTHORIZED".to_vec())
}
