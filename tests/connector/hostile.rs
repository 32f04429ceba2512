//! Whoever can reach a port may send anything: the daemon stays up, bounded, and open to everybody else.

use crate::harness::{Daemon, Heard, Mode, PATIENCE, Peer, Setup, for_both_modes, in_both_modes, post, request};
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const STATUS: &str = "/api/v2/status";
const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn expect_served(daemon: &Daemon) {
    let start = Instant::now();
    assert_eq!(daemon.controller().status("all")["status"], "running");
    assert!(start.elapsed() < 5 * SECOND, "a Controller waited {:?}", start.elapsed());
}

fn api(daemon: &Daemon) -> Peer {
    daemon.dial(daemon.ports.api()).connect().expect("a connection to the API")
}

#[test]
fn half_sent_requests_lock_nobody_out() {
    in_both_modes(|daemon| {
        let half = post(STATUS, "mappingid=all");
        let open = || {
            let peer = api(daemon);
            peer.send(&half.as_bytes()[..half.len() - 1]);
            peer
        };
        let before = daemon.descriptors();
        let oldest = open();
        oldest.expect_silence(); // and so it is older than the others by the daemon's clock, too
        let mut held: Vec<Peer> = (0..31).map(|_| open()).collect();
        expect_served(daemon);
        oldest.expect_end_at_last(PATIENCE);
        held.extend((0..if daemon.mode == Mode::Plain { 568 } else { 100 }).map(|_| open()));
        for _ in 0..20 {
            expect_served(daemon);
        }
        // 32 connections, each with its other end, and a few for what was just accepted.
        let now = daemon.descriptors();
        assert!(now <= before + 32 * 4 + 8, "{before} descriptors became {now}");
        assert!(daemon.threads() <= 48, "{} threads", daemon.threads());
    });
}

#[test]
fn answered_clients_that_never_hang_up_take_nobodys_place() {
    in_both_modes(|daemon| {
        expect_served(daemon);
        let before = daemon.descriptors();
        let answered = || {
            let mut connection = daemon.controller().connect().expect("a connection");
            assert_eq!(connection.exchange(&request("POST", STATUS, &["Connection: close"], "")).status, 400);
            connection
        };
        let clients: Vec<_> = (0..80).map(|_| answered()).collect();
        // 32 connections, the way to the HTTP parser of one, and a few for what was just accepted.
        let now = daemon.descriptors();
        assert!(now <= before + 32 + 8, "{before} descriptors became {now}, with {} clients", clients.len());
        expect_served(daemon);
    });
}

#[test]
fn a_request_has_ten_seconds() {
    in_both_modes(|daemon| {
        let whole = post(STATUS, "mappingid=all");
        let until_end = |peer: Peer| {
            let start = Instant::now();
            peer.expect_end_at_last(30 * SECOND);
            assert!(start.elapsed() >= 8 * SECOND, "ended after {:?} already", start.elapsed());
        };
        thread::scope(|scope| {
            for half in [1, 20, whole.len() - 1] {
                let peer = api(daemon);
                peer.send(&whole.as_bytes()[..half]);
                scope.spawn(move || until_end(peer));
            }
            if daemon.mode == Mode::Tls {
                let silent = daemon.dial(daemon.ports.api()).without_tls().connect().expect("a connection");
                scope.spawn(move || until_end(silent));
            }
        });
        expect_served(daemon);
    });
}

#[test]
fn silent_connections_lock_nobody_out() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(2));
        let before = daemon.resident_kib();
        let silent: Vec<_> = (0..1000).map(|_| daemon.dial(daemon.ports.api()).without_tls().connect()).collect();
        expect_served(daemon);
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB more for {} silent connections", silent.len());
        agent.send(b"still here");
        user.expect(b"still here");
    });
}

#[test]
fn garbage_instead_of_tls_is_closed() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 300],
        &[0xff; 20_000],
        b"\x16\x03\x01\xff\xffxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", // a record longer than may be
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",              // a ClientHello without anything in it
    ];
    for port in [daemon.ports.api(), mapping.ports[0], mapping.ports[1]] {
        for bytes in garbage {
            let peer = daemon.dial(port).without_tls().connect().expect("a connection");
            let _ = peer.send_raw(bytes);
            peer.finish(); // some garbage looks like the beginning of something longer
            peer.expect_end_at_last(PATIENCE);
        }
    }
    expect_served(&daemon);
    daemon.pair(&mapping);
}

#[test]
fn garbage_in_a_tls_session_ends_it_and_what_it_is_joined_to() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    for user_spoils in [true, false] {
        let (agent, user) = daemon.pair(&mapping);
        let (spoiler, other) = if user_spoils { (&user, &agent) } else { (&agent, &user) };
        spoiler.send_raw(b"\x17\x03\x03\x00\x20################################").expect("sent");
        other.expect_end();
    }
    daemon.pair(&mapping);
}

/// Sends `chunk` again and again; true if the daemon ended that before it took 8 MiB.
fn is_stopped(peer: &Peer, chunk: &str) -> bool {
    let rounds = (8 << 20) / chunk.len();
    (0..rounds).any(|_| !peer.try_send(chunk.as_bytes(), PATIENCE).unwrap_or(false))
}

#[test]
fn endless_requests_are_cut_off() {
    in_both_modes(|daemon| {
        expect_served(daemon);
        let before = daemon.resident_kib();
        let form = "Content-Type: application/x-www-form-urlencoded";
        let x = "x".repeat(8000);
        for (begin, endless) in [
            ("".to_owned(), x.clone()),
            (format!("POST {STATUS} HTTP/1.1\r\nX-Long: "), x.clone()),
            (format!("POST {STATUS} HTTP/1.1\r\n"), format!("X-Many: {x}\r\n")),
            (format!("POST {STATUS} HTTP/1.1\r\n"), "A: b\r\n".repeat(1000)),
            (
                format!("POST {STATUS} HTTP/1.1\r\nHost: x\r\n{form}\r\nTransfer-Encoding: chunked\r\n\r\n"),
                format!("1f40\r\n{x}\r\n"),
            ),
            (format!("POST {STATUS} HTTP/1.1\r\nHost: x\r\n{form}\r\nContent-Length: 99999999999\r\n\r\n"), x.clone()),
        ] {
            let peer = api(daemon);
            peer.send(begin.as_bytes());
            assert!(is_stopped(&peer, &endless), "8 MiB were taken after {begin:?}");
            expect_served(daemon);
        }
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 4 * 1024, "{grown} KiB more");
    });
}

#[test]
fn malformed_requests_are_refused_or_closed() {
    let daemon = Setup::new(Mode::Plain).start();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let requests = [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "POST\r\n\r\n".to_owned(),
        "POST /api/v2/status\r\n\r\n".to_owned(),
        "POST /api/v2/status HTTP/9.9\r\n\r\n".to_owned(),
        "POST  HTTP/1.1\r\n\r\n".to_owned(),
        format!("POST {STATUS} HTTP/1.1\r\nno colon\r\n\r\n"),
        format!("POST {STATUS} HTTP/1.1\r\n{form}Content-Length: -1\r\n\r\n"),
        format!("POST {STATUS} HTTP/1.1\r\n{form}Content-Length: many\r\n\r\n"),
        format!("POST {STATUS} HTTP/1.1\r\n{form}Content-Length: 13\r\nContent-Length: 3\r\n\r\nmappingid=all"),
        format!("POST {STATUS} HTTP/1.1\r\n{form}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("POST {STATUS} HTTP/1.1\r\n{form}Transfer-Encoding: x\r\n\r\n"),
    ];
    thread::scope(|scope| {
        for request in &requests {
            let peer = api(&daemon);
            scope.spawn(move || {
                peer.send(request.as_bytes());
                let first = peer.hear(30 * SECOND); // what looks unfinished has its 10 s
                let refused = matches!(&first, Heard::Message(bytes) if bytes.starts_with(b"HTTP/1.1 4") || bytes.starts_with(b"HTTP/1.1 5"));
                assert!(refused || matches!(first, Heard::Ended(_)), "{request:?} was answered {first:?}");
            });
        }
        expect_served(&daemon);
    });
    expect_served(&daemon);
}

#[test]
fn a_flood_of_requests_leaves_room_for_others() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let many = post(STATUS, "mappingid=nope").repeat(50);
                    while running.load(Ordering::Relaxed) {
                        let Ok(mut connection) = daemon.controller().connect() else { continue };
                        let _ = connection.send(&many);
                        (0..50).all(|_| connection.answer_within(PATIENCE).is_ok());
                    }
                });
            }
            for _ in 0..20 {
                expect_served(daemon);
                agent.send(b"ping");
                user.expect(b"ping");
            }
            running.store(false, Ordering::Relaxed);
        });
    });
}

/// So many direct entries make the answer to `mapping/list` far longer than what a socket takes at once.
const ENTRIES: usize = 10_000;

#[test]
fn who_asks_much_and_takes_nothing_costs_one_answer() {
    for_both_modes(|mode| {
        let mut daemon = Setup::new(mode).prepare();
        let entry = |n: usize| {
            json!({
                "id": format!("entry {n}"), "port1": 0, "port2": 0, "maxconnectionsport1": 0, "maxconnectionsport2": 0,
                "passcodeport1": "a passkey", "passcodeport2": "",
                "heartbeatabsencethresholdport1": 0, "heartbeatabsencethresholdport2": 0,
            })
        };
        let entries: Vec<Value> = (0..ENTRIES).map(entry).collect();
        fs::write(daemon.path("configs.json"), json!({"mappings": entries}).to_string()).expect("a file");
        daemon.start();
        let list = || daemon.controller().post("/api/v2/mapping/list", "");
        assert!(list().body.len() > 256 * 1024);
        let before = daemon.resident_kib();
        let mut greedy = daemon.controller().connect().expect("a connection");
        greedy.send(&post("/api/v2/mapping/list", "").repeat(12)).expect("sent");
        for _ in 0..3 {
            expect_served(&daemon);
            assert_eq!(list().status, 200);
        }
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 12 * 1024, "{grown} KiB more");
        // Each is answered, one after the other, as soon as the one before has been taken.
        for _ in 0..12 {
            let answer = greedy.answer_within(PATIENCE).expect("an answer");
            assert_eq!((answer.status, answer.body.matches("\"direct\"").count()), (200, ENTRIES));
        }
        assert_eq!(greedy.exchange(&post(STATUS, "mappingid=all")).status, 200);
    });
}
