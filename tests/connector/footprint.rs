//! What a connection costs that has not authenticated itself, in every state: no more than docs/limits.md says, and the
//! memory is used again by the next.

use crate::harness::{Daemon, Dial, Mapping, Mode, PATIENCE, Peer, Setup, test_certificate, wait_until};
use rustls::{ALL_VERSIONS, ClientConnection};

/// Connections in each measurement: enough that pages do not matter.
const CROWD: usize = 200;
/// At one port: less than what has room there.
const AT_A_PORT: usize = 50;

/// The figure of limits.md for a connection without, or with TLS that is not authenticated. Bytes.
fn limit(row: &str) -> u64 {
    let page = include_str!("../../docs/limits.md");
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {row} | "))).expect("a row of that name");
    let number = row.split(" KiB").next().and_then(|number| number.parse::<f64>().ok()).expect("a number of KiB");
    (number * 1024.0) as u64
}

type Open = fn(Dial) -> Peer;

const TLS_STATES: [(&str, Open); 6] = [
    ("without a byte", |dial| raw(dial, b"")),
    ("with half a record", |dial| raw(dial, &[b"\x16\x03\x01\x40\x00", &[1; 16_000][..]].concat())),
    ("with a ClientHello in pieces", |dial| {
        raw(dial, &[b"\x16\x03\x01\x0f\xa0\x01\x00\xea\x60", &[1; 3996][..]].concat())
    }),
    ("with a ClientHello in many pieces", |dial| {
        let piece = b"\x16\x03\x01\x00\x04\x01\x00\xea\x60";
        raw(dial, &piece.repeat(4000 / piece.len()))
    }),
    ("in the middle of its handshake", |dial| raw(dial, &client_hello())),
    ("after its handshake", |dial| dial.connect().expect("a connection")),
];

const PLAIN_STATES: [(&str, Open); 2] =
    [("without a byte", |dial| raw(dial, b"")), ("with half a passcode", |dial| raw(dial, b"0a1b"))];

fn raw(dial: Dial, bytes: &[u8]) -> Peer {
    let peer = dial.without_tls().connect().expect("a connection");
    peer.send_raw(bytes).expect("a connection that takes it");
    peer
}

fn client_hello() -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(test_certificate().client(ALL_VERSIONS), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    bytes
}

/// Connects a crowd at the ports of agents, and waits until all have been looked at. Returns resident memory then.
fn crowd(daemon: &Daemon, mappings: &[Mapping], open: Open) -> u64 {
    let counts = || daemon.controller().status("all")["unauthorized"].as_u64().expect("a number") as usize;
    let dial = |i: usize| daemon.dial(mappings[i / AT_A_PORT].ports[0]).from([127, 0, 1, 1 + i as u8]);
    let held: Vec<Peer> = (0..CROWD).map(|i| open(dial(i))).collect();
    wait_until("the crowd is there", PATIENCE, || counts() == CROWD);
    let resident = daemon.resident_kib() * 1024;
    drop(held);
    wait_until("the crowd is gone", PATIENCE, || counts() == 0);
    resident
}

fn measure(mode: Mode, row: &str, states: &[(&str, Open)]) {
    let most = limit(row);
    for (name, open) in states {
        // glibc gives threads that wait for each other a heap of their own each, and pages of those are not what a
        // connection costs. What ships has one heap.
        let daemon = Setup::new(mode).environment("MALLOC_ARENA_MAX", "1").start();
        let mappings: Vec<_> = (0..CROWD / AT_A_PORT).map(|_| daemon.add_public(1)).collect();
        // What is allocated once is there.
        drop(daemon.pair(&mappings[0]));
        let before = daemon.resident_kib() * 1024;
        let peaks = [(); 3].map(|()| crowd(&daemon, &mappings, *open).saturating_sub(before) / CROWD as u64);
        println!("{row}, {name}: {peaks:?} bytes");
        let [_, second, last] = peaks;
        let largest = *peaks.iter().max().expect("three");
        assert!(largest <= most, "a connection {name} costs {largest} bytes, limits.md says {most}");
        // The first crowd has filled the tables of failures; from then on only pages that the allocator keeps are more.
        assert!(last <= second + most / 16, "{name}: {last} bytes a connection when they come again, {second} before");
    }
}

#[test]
fn a_connection_without_authentication_costs_no_more_than_the_limits_say_over_tls() {
    measure(Mode::Tls, "not authenticated, with TLS", &TLS_STATES);
}

#[test]
fn a_connection_without_authentication_costs_no_more_than_the_limits_say_in_dev_mode() {
    measure(Mode::Plain, "not authenticated, in dev mode", &PLAIN_STATES);
}
