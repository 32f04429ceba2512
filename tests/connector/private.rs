//! Private pipes: agents on both ports (docs/protocol.md, "Private pipe").

use crate::harness::{Mode, PATIENCE, Payload, Peer, in_both_modes};
use serde_json::json;
use std::thread;

#[track_caller]
fn expect_joined(left: &Peer, right: &Peer) {
    left.send(b"to the right");
    right.expect(b"to the right");
    right.send(b"to the left");
    left.expect(b"to the left");
}

#[test]
fn the_nth_of_one_port_is_joined_to_the_nth_of_the_other() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(3);
        let left: Vec<Peer> = (0..3).map(|_| daemon.agent_on(&mapping, 0)).collect();
        let right: Vec<Peer> = (0..3).map(|_| daemon.agent_on(&mapping, 1)).collect();
        left.iter().zip(&right).for_each(|(left, right)| expect_joined(left, right));
        let right = daemon.add_private(2);
        let [first, second] = [daemon.agent_on(&right, 1), daemon.agent_on(&right, 1)];
        expect_joined(&daemon.agent_on(&right, 0), &first);
        drop(first);
        expect_joined(&daemon.agent_on(&right, 0), &second);
    });
}

#[test]
fn payload_for_an_absent_side_is_discarded() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        for side in [0, 1] {
            let early = daemon.agent_on(&mapping, side);
            early.send(b"the head of a message");
            if daemon.mode == Mode::Tls {
                early.send(b"BEAT"); // answered only after what was before it
                early.expect_message(b"BEAT");
            }
            let late = daemon.agent_on(&mapping, 1 - side);
            late.expect_silence();
            expect_joined(&early, &late);
            drop(late);
            early.expect_end();
        }
    });
}

#[test]
fn an_endless_sender_without_the_other_side_is_neither_stopped_nor_stored() {
    in_both_modes(|daemon| {
        let early = daemon.agent_on(&daemon.add_private(1), 0);
        let before = daemon.resident_kib();
        Payload::new(1).send(&early, 16 << 20);
        early.expect_silence();
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 4 * 1024, "{grown} KiB more after 16 MiB to nobody");
    });
}

#[test]
fn when_one_side_ends_all_it_sent_reaches_the_other_before_the_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(1);
        for side in [0, 1] {
            let ending = daemon.agent_on(&mapping, side);
            let other = daemon.dial(mapping.ports[1 - side]).small_buffers().connect().expect("a connection");
            other.authorize(&mapping, 1 - side);
            thread::scope(|scope| {
                scope.spawn(|| {
                    Payload::new(1).send(&ending, 1 << 20);
                    ending.finish();
                });
                Payload::new(1).receive(&other, 1 << 20);
                other.expect_end();
            });
        }
    });
}

#[test]
fn nobody_gets_the_tail_of_a_message_whose_head_went_elsewhere() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
        left.send(b"head");
        right.expect(b"head");
        let waiting = daemon.agent_on(&mapping, 1);
        right.reset();
        left.expect_end();
        let _ = left.try_send(b"tail", PATIENCE);
        waiting.expect_silence();
        expect_joined(&daemon.agent_on(&mapping, 0), &waiting);
    });
}

#[test]
fn each_side_has_its_own_passcode_and_limit() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&json!({
            "type": "private",
            "maxconnectionsport1": 1,
            "maxconnectionsport2": 2,
            "heartbeatabsencethresholdport1": 0,
            "heartbeatabsencethresholdport2": 0,
        }));
        assert_ne!(mapping.passcodes[0], mapping.passcodes[1]);
        for side in [0, 1] {
            let crossed = daemon.stranger(&mapping, side);
            crossed.send(mapping.passcodes[1 - side].as_bytes());
            crossed.expect_end();
        }
        let _agents = [0, 1, 1].map(|side| daemon.agent_on(&mapping, side));
        for side in [0, 1] {
            let too_many = daemon.stranger(&mapping, side);
            too_many.send(mapping.passcodes[side].as_bytes());
            too_many.expect_end();
        }
    });
}

#[test]
fn each_side_has_its_own_absence_threshold() {
    in_both_modes(|daemon| {
        let mapping = daemon.add(&json!({
            "type": "private",
            "maxconnectionsport1": 1,
            "maxconnectionsport2": 1,
            "heartbeatabsencethresholdport1": 0,
            "heartbeatabsencethresholdport2": 1000,
        }));
        let patient = daemon.agent_on(&mapping, 0);
        let silent = daemon.agent_on(&mapping, 1);
        silent.expect_end();
        patient.expect_end(); // and so what it was joined to
        let alone = daemon.agent_on(&mapping, 0);
        assert_eq!(alone.hear(std::time::Duration::from_secs(3)), crate::harness::Heard::Silence); // three scans
    });
}

#[test]
fn an_agent_that_ends_in_the_very_turn_is_joined_to_nobody() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(3);
        let [gone, stays] = [0; 2].map(|_| daemon.agent_on(&mapping, 0));
        let late = daemon.stranger(&mapping, 1);
        daemon.freeze();
        late.send(mapping.passcodes[1].as_bytes());
        gone.finish();
        gone.wait_until_acknowledged();
        daemon.thaw();
        late.expect_message(b"AUTHORIZED");
        expect_joined(&stays, &late);
    });
}
