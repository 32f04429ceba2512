//! The recorded requests with bodies that somebody has tampered with: each is answered, none does any harm.
//!
//! The same bodies every time. `FUZZED_REQUESTS` says how many, `FUZZ_SEED` which.

use crate::harness::{Controller, Daemon, Mode, PATIENCE, Random, Setup, form, number, recorded, wait_until};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::{fs, thread};

const REQUESTS: u64 = 4000;
/// Connections that they come on.
const CALLERS: u64 = 4;
/// Mappings that one caller leaves open at most, so that new ones can be added.
const KEPT: usize = 5;
/// Memory that stays behind, KiB: allocators do not give all of it back.
const MEMORY_KIB: u64 = 8 * 1024;

/// What parsers stumble over.
const TOKENS: [&[u8]; 34] = [
    b"%",
    b"%0",
    b"%00",
    b"%ff",
    b"%zz",
    b"&",
    b"=",
    b"+",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1.5",
    b"1e999",
    b"65536",
    b"2147483648",
    b"99999999999999999999",
    b"mapping=",
    b"mappingid=all&",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Tampers with `body` in a few places; `others` are what it may be crossed with.
fn mutate(body: &mut Vec<u8>, others: &[(String, Vec<u8>)], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(body.len() + 1);
        let end = (at + random.below(20)).min(body.len());
        match random.below(7) {
            0 if at < body.len() => body[at] ^= 1 << random.below(8),
            1 if at < body.len() => body[at] = random.below(256) as u8,
            2 => drop(body.drain(at..end)),
            3 => body.extend_from_within(at..end),
            4 => body.truncate(at),
            5 => {
                let (_, other) = random.any(others);
                body.truncate(at);
                body.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => drop(body.splice(at..end.min(at + 1), random.any(&TOKENS).iter().copied())),
        }
    }
}

/// The daemon does what it is told from this machine.
fn is_deadly(body: &[u8]) -> bool {
    form_urlencoded::parse(body).any(|(_, value)| value == "stop")
}

/// Path and body of each recorded request, the answers to those before it put in.
fn bodies(controller: &Controller) -> Vec<(String, Vec<u8>)> {
    let mut answers = HashMap::new();
    let mut bodies = Vec::new();
    for exchange in recorded().iter().filter(|exchange| exchange.line.starts_with("POST")) {
        let ([_, path, _], body) = (exchange.request_line(&answers), exchange.body(&answers));
        let answer = controller.post(&path, &body);
        answers.insert(exchange.name.clone(), serde_json::from_str(&answer.body).unwrap_or(Value::Null));
        bodies.push((path, body.into_bytes()));
    }
    bodies
}

/// Sends `count` tampered requests on one connection, or on another where the daemon closes it. Returns how often
/// there was which status.
fn call(
    controller: &Controller,
    originals: &[(String, Vec<u8>)],
    count: u64,
    mut random: Random,
) -> BTreeMap<u16, u64> {
    let mut statuses = BTreeMap::new();
    let mut connection = controller.connect().expect("a connection");
    let mut made = VecDeque::new();
    for _ in 0..count {
        let (path, mut body) = random.any(originals).clone();
        mutate(&mut body, originals, &mut random);
        if is_deadly(&body) {
            continue;
        }
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = connection.peer.try_send(&[head.as_bytes(), &body].concat(), PATIENCE);
        let shown = String::from_utf8_lossy(&body);
        let answer = match sent.and_then(|_| connection.answer_within(PATIENCE)) {
            Ok(answer) => answer,
            Err(error) => panic!("{path} {shown:?}: {error}"),
        };
        assert!(answer.status < 500 || answer.status == 507, "{path} {shown:?}: {answer:?}");
        *statuses.entry(answer.status).or_default() += 1;
        let json = answer.json();
        let explained = answer.status == 200 || json["errormessage"].as_str().is_some_and(|text| !text.is_empty());
        assert!(explained, "{path} {shown:?}: {answer:?}");
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            connection = controller.connect().expect("a connection");
        }
        if answer.status == 200 && path.ends_with("/add") {
            made.push_back(json["id"].as_str().expect("an id").to_owned());
        }
        if made.len() > KEPT {
            let id = made.pop_front().expect("there are some");
            controller.post("/api/v2/mapping/remove", &form("mappingid", &id)); // it may be gone already
        }
    }
    statuses
}

fn remove_all(daemon: &Daemon) {
    let stored = fs::read(daemon.path("configs.json")).expect("a file");
    let stored: Value = serde_json::from_slice(&stored).expect("JSON");
    for mapping in stored["mappings"].as_array().expect("a list") {
        let id = mapping["id"].as_str().expect("an id");
        let answer = daemon.controller().post("/api/v2/mapping/remove", &form("mappingid", id));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn tampered_requests_are_answered_and_do_no_harm() {
    let daemon = Setup::new(Mode::Plain).start();
    let controller = daemon.controller();
    let usable = controller.status("all")["availablePorts"].clone();
    let originals = bodies(&controller);
    remove_all(&daemon);
    let (descriptors, memory) = (daemon.descriptors(), daemon.resident_kib());
    let (count, seed) = (number("FUZZED_REQUESTS", REQUESTS), number("FUZZ_SEED", 1));
    let statuses = thread::scope(|scope| {
        let begin = |caller| {
            let random = Random::new(seed * CALLERS + caller);
            let (controller, originals) = (&controller, &originals);
            scope.spawn(move || call(controller, originals, count / CALLERS, random))
        };
        let callers: Vec<_> = (0..CALLERS).map(begin).collect();
        let mut statuses = BTreeMap::new();
        for (status, times) in callers.into_iter().flat_map(|caller| caller.join().expect("all answered")) {
            *statuses.entry(status).or_insert(0) += times;
        }
        statuses
    });
    println!("{count} requests, by status: {statuses:?}");
    assert!([200, 400, 404].iter().all(|status| statuses.contains_key(status)), "one-sided: {statuses:?}");
    remove_all(&daemon);
    let after = controller.status("all");
    assert_eq!((&after["mappings"], &after["availablePorts"]), (&0.into(), &usable));
    let grown = daemon.resident_kib().saturating_sub(memory);
    println!("{grown} KiB more, {} threads", daemon.threads());
    assert!(grown < MEMORY_KIB, "{grown} KiB more after {count} requests");
    wait_until("all descriptors are closed", PATIENCE, || daemon.descriptors() <= descriptors);
}
