//! Records that no honest TLS peer sends end the connection that they came on, and nothing else.
//!
//! What may come behind a handshake is in `fuzz/corpus/tls_records`, which `cargo test` runs as well.

use crate::harness::{AgentProgram, Mode, PATIENCE, Setup};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::thread;

/// A ClientHello that claims 16 MiB, or the beginning of one.
const UNFINISHED: &[u8] = b"\x16\x03\x01\x00\x04\x01\xff\xff\xff";
const FRAGMENT: &[u8] = b"\x16\x03\x01\x00\x04\x01\x00\x01\xfc";
const BEHIND: [&[u8]; 5] = [
    b"",
    b"\x15\x03\x03\x00\x02\x02\x28", // a fatal alert
    b"\x15\x03\x03\x00\x02\x01\x00", // close_notify
    b"\x17\x03\x03\x00\x01x",        // application data
    b"\x14\x03\x03\x00\x01\x01",     // ChangeCipherSpec
];

fn hostile_records() -> impl Iterator<Item = Vec<u8>> {
    BEHIND.iter().flat_map(|behind| [UNFINISHED, FRAGMENT].map(|begin| [begin, behind].concat()))
}

#[test]
fn a_broken_handshake_ends_its_own_connection() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let (agent, user) = daemon.pair(&mapping);
    for port in [mapping.ports[0], mapping.ports[1], daemon.ports.api()] {
        for records in hostile_records() {
            let peer = daemon.dial(port).without_tls().connect().expect("a connection");
            let _ = peer.send_raw(&records);
            peer.finish();
            peer.expect_end_at_last(PATIENCE);
        }
    }
    agent.send(b"still here");
    user.expect(b"still here");
    assert_eq!(daemon.controller().status("all")["status"], "running");
}

#[test]
fn records_in_an_open_connection_that_are_none_end_it_alone() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(4);
    for behind in BEHIND {
        let (agent, user) = daemon.pair(&mapping);
        for hostile in [&user, &agent] {
            let _ = hostile.send_raw(&[UNFINISHED, behind].concat());
        }
        user.expect_end_at_last(PATIENCE);
        agent.expect_end_at_last(PATIENCE);
    }
    let (agent, user) = daemon.pair(&mapping);
    agent.send(b"still here");
    user.expect(b"still here");
}

#[test]
fn a_handshake_longer_than_is_kept_is_ended() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let peer = daemon.dial(mapping.ports[1]).without_tls().connect().expect("a connection");
    // Most of a ClientHello of 60,000 bytes, in records of 2,000.
    let record = [b"\x16\x03\x01\x07\xd0", &[0; 2000][..]].concat();
    let first = [b"\x16\x03\x01\x00\x04\x01\x00\xea\x60", &record[..]].concat();
    let _ = peer.send_raw(&first);
    peer.expect_silence();
    let _ = peer.send_raw(&[&record[..], &record].concat());
    peer.expect_end_at_last(PATIENCE);
}

#[test]
fn an_impostor_cannot_end_the_agent() {
    thread::scope(|scope| {
        for records in hostile_records() {
            scope.spawn(move || impersonate(&records));
        }
    });
}

/// Answers an agent with `records`; it must say what is wrong and come again.
fn impersonate(records: &[u8]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let agent = AgentProgram::bare("0a1b2c3d").with(&["--connector", &format!("127.0.0.1:{port}")]);
    let agent = agent.exposing(1, 1).spawn();
    let (mut stream, _) = listener.accept().expect("the agent");
    let _ = stream.read(&mut [0; 2000]);
    let _ = stream.write_all(records);
    let _ = stream.shutdown(Shutdown::Write);
    agent.wait_for("TLS handshake");
    listener.accept().expect("the agent, once more");
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
