//! The broker: two peers of a direct entry learn where the other one is (docs/protocol.md, "Broker").

use crate::harness::{Daemon, Heard, Mode, PATIENCE, Peer, Setup, form, in_both_modes, wait_until};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A direct entry, as direct/add answers it.
struct Direct {
    id: String,
    passkey: String,
}

impl Direct {
    #[track_caller]
    fn add(daemon: &Daemon) -> Self {
        let answer = daemon.controller().post("/api/v2/direct/add", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["port"], daemon.ports.broker());
        let text = |key: &str| json[key].as_str().expect("a string").to_owned();
        let entry = Self { id: text("id"), passkey: text("passkey") };
        daemon.keep_secret(&entry.passkey);
        entry
    }

    #[track_caller]
    fn remove(&self, daemon: &Daemon) {
        let answer = daemon.controller().post("/api/v2/direct/remove", &form("mappingid", &self.id));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What a peer called `name` sends.
    fn request(&self, name: &str) -> String {
        request(&self.id, &self.passkey, name)
    }

    /// A peer that waits.
    #[track_caller]
    fn wait(&self, daemon: &Daemon, name: &str) -> Peer {
        let peer = connect(daemon);
        peer.send(self.request(name).as_bytes());
        expect_to_wait(&peer);
        peer
    }
}

fn request(id: &str, passkey: &str, name: &str) -> String {
    let certificate = format!("-----BEGIN CERTIFICATE-----\n{name}\n");
    json!({"id": id, "passkey": passkey, "certificate": certificate, "localip": format!("ip of {name}")}).to_string()
}

/// The broker speaks plain TCP in every mode.
#[track_caller]
fn connect(daemon: &Daemon) -> Peer {
    connect_from(daemon, [127, 0, 0, 1])
}

#[track_caller]
fn connect_from(daemon: &Daemon, address: [u8; 4]) -> Peer {
    let dial = daemon.dial(daemon.ports.broker()).without_tls().from(address);
    dial.connect().expect("a connection to the broker")
}

/// The next JSON object, in whatever pieces it comes.
#[track_caller]
fn hear_json(peer: &Peer) -> (String, Value) {
    let mut text = String::new();
    loop {
        text += std::str::from_utf8(&peer.expect_some()).expect("UTF-8");
        if let Ok(json) = serde_json::from_str(&text) {
            return (text, json);
        }
    }
}

#[track_caller]
fn expect_to_wait(peer: &Peer) {
    assert_eq!(hear_json(peer).0, r#"{"status":"ok"}"#);
}

#[track_caller]
fn expect_not_authorized(peer: &Peer) {
    assert_eq!(hear_json(peer).0, r#"{"status":"not authorized"}"#);
    peer.expect_clean_end();
}

/// `peer` is told all about `other`, who is called `name`.
#[track_caller]
fn expect_introduction(peer: &Peer, other: &Peer, name: &str, delay: bool) {
    let (text, json) = hear_json(peer);
    let expected = json!({
        "status": "connect",
        "listen": peer.local().port(),
        "connect": other.local().port(),
        "privateip": format!("ip of {name}"),
        "publicip": other.local().ip().to_string(),
        "certificate": format!("-----BEGIN CERTIFICATE-----\n{name}\n"),
        "delay": delay,
    });
    assert_eq!(json, expected);
    assert!(text.starts_with(r#"{"status":"connect","listen":"#), "{text}");
}

#[test]
fn two_peers_are_told_of_each_other() {
    in_both_modes(|daemon| {
        let [entry, other] = [Direct::add(daemon), Direct::add(daemon)];
        let bystander = other.wait(daemon, "bystander");
        for round in 0..3 {
            let [first, second] = [connect_from(daemon, [127, 0, 0, 2]), connect_from(daemon, [127, 0, 0, 3])];
            first.send(entry.request("first").as_bytes());
            expect_to_wait(&first);
            second.send(entry.request("second").as_bytes());
            expect_introduction(&first, &second, "second", false);
            expect_introduction(&second, &first, "first", true);
            if round == 0 {
                // They stay connected until they close by themselves: their ports are to be punched.
                first.expect_silence();
                second.expect_silence();
            }
            first.finish();
            first.expect_clean_end();
        }
        bystander.expect_silence();
    });
}

#[test]
fn a_request_may_come_in_pieces_and_with_something_behind_it() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let [first, second] = [connect(&daemon), connect(&daemon)];
    for byte in format!("\r\n{}\r\n", entry.request("a } \" \\ name")).bytes() {
        first.send(&[byte]);
    }
    expect_to_wait(&first);
    first.send(&[b'x'; 100_000]);
    second.send(format!("{} and more", entry.request("second")).as_bytes());
    expect_introduction(&second, &first, "a } \" \\ name", true);
    expect_introduction(&first, &second, "second", false);
}

#[test]
fn who_is_not_authorized_is_told_so_and_closed() {
    in_both_modes(|daemon| {
        let [entry, other, removed] = [Direct::add(daemon), Direct::add(daemon), Direct::add(daemon)];
        let mapping = daemon.add_public(1);
        removed.remove(daemon);
        let waiting = entry.wait(daemon, "waiting");
        for (i, (id, passkey)) in [
            (entry.id.as_str(), other.passkey.as_str()),
            (&entry.id, ""),
            (&entry.id, &entry.passkey[..35]),
            (&removed.id, &removed.passkey),
            ("nope", &entry.passkey),
            (&mapping.id, &mapping.passcodes[0]),
        ]
        .into_iter()
        .enumerate()
        {
            let stranger = connect_from(daemon, [127, 0, 1, i as u8 + 1]); // none has failed before
            stranger.send(request(id, passkey, "stranger").as_bytes());
            expect_not_authorized(&stranger);
        }
        waiting.expect_silence();
        assert!(daemon.log().contains("unknown id or wrong passkey"), "{}", daemon.log());
    });
}

#[test]
fn what_is_no_request_is_told_what_is_wrong() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let whole: Value = serde_json::from_str(&entry.request("peer")).expect("JSON");
    let without = |field: &str| {
        let mut json = whole.clone();
        json.as_object_mut().expect("an object").remove(field);
        json.to_string()
    };
    let with = |field: &str, value: Value| {
        let mut json = whole.clone();
        json[field] = value;
        json.to_string()
    };
    let mut cases = vec![
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "JSON object"),
        ("[1, 2]".to_owned(), "JSON object"),
        ("{\"id\": }".to_owned(), "column"),
        (with("certificate", "x".repeat(16 * 1024).into()), "16384"),
    ];
    for field in ["id", "passkey", "certificate", "localip"] {
        cases.push((without(field), field));
        cases.push((with(field, json!(7)), field));
        cases.push((with(field, json!(null)), field));
    }
    for (text, complaint) in cases {
        let peer = connect(&daemon);
        peer.send(text.as_bytes());
        let (_, answer) = hear_json(&peer);
        assert_eq!(answer["status"], "failed", "{answer}");
        assert!(answer["errormessage"].as_str().is_some_and(|m| m.contains(complaint)), "{complaint}: {answer}");
        peer.expect_end();
    }
    entry.wait(&daemon, "peer");
}

#[test]
fn a_waiting_peer_that_leaves_is_forgotten() {
    in_both_modes(|daemon| {
        let entry = Direct::add(daemon);
        let leaver = entry.wait(daemon, "leaver");
        leaver.finish();
        leaver.expect_clean_end();
        entry.wait(daemon, "vanishing").reset();
        // Whatever of the reset has arrived: nobody is introduced to who is gone, or not for long.
        let next = wait_for_place(daemon, &entry);
        let second = connect(daemon);
        second.send(entry.request("second").as_bytes());
        expect_introduction(&second, &next, "next", true);
        expect_introduction(&next, &second, "second", false);
    });
}

#[test]
fn a_peer_that_connects_again_is_not_introduced_to_itself() {
    in_both_modes(|daemon| {
        let entry = Direct::add(daemon);
        // The first connection is as good as dead: whoever held it has a new one.
        let before = entry.wait(daemon, "peer");
        let again = entry.wait(daemon, "peer");
        before.expect_clean_end();
        let other = connect(daemon);
        other.send(entry.request("other").as_bytes());
        expect_introduction(&other, &again, "peer", true);
        expect_introduction(&again, &other, "other", false);
    });
}

#[test]
fn peers_of_one_certificate_at_two_addresses_are_two() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let first = entry.wait(&daemon, "shared");
    let second = connect_from(&daemon, [127, 0, 0, 2]);
    second.send(entry.request("shared").as_bytes());
    expect_introduction(&second, &first, "shared", true);
    expect_introduction(&first, &second, "shared", false);
}

/// Calls until told to wait: a reset may take a moment to arrive.
fn wait_for_place(daemon: &Daemon, entry: &Direct) -> Peer {
    let start = Instant::now();
    loop {
        let peer = connect(daemon);
        peer.send(entry.request("next").as_bytes());
        if hear_json(&peer).1["status"] == "ok" {
            return peer;
        }
        assert!(start.elapsed() < PATIENCE, "the peer that was reset still waits");
    }
}

#[test]
fn removing_an_entry_closes_who_waits_there() {
    in_both_modes(|daemon| {
        let [kept, removed] = [Direct::add(daemon), Direct::add(daemon)];
        let [stays, goes] = [kept.wait(daemon, "stays"), removed.wait(daemon, "goes")];
        removed.remove(daemon);
        goes.expect_clean_end();
        let late = connect(daemon);
        late.send(removed.request("late").as_bytes());
        expect_not_authorized(&late);
        stays.expect_silence();
    });
}

#[test]
fn a_request_has_ten_seconds_and_waiting_has_more() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let waiting = entry.wait(&daemon, "waiting");
    let whole = entry.request("slow");
    let until_end = |peer: Peer| {
        let start = Instant::now();
        peer.expect_end_at_last(30 * SECOND);
        assert!(start.elapsed() >= 8 * SECOND, "ended after {:?} already", start.elapsed());
    };
    thread::scope(|scope| {
        for sent in [0, 1, whole.len() - 1] {
            let peer = connect(&daemon);
            peer.send(&whole.as_bytes()[..sent]);
            scope.spawn(move || until_end(peer));
        }
    });
    waiting.expect_silence();
}

#[test]
fn a_crowd_pushes_out_its_own_oldest_and_nobody_who_waits() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let waiting = entry.wait(&daemon, "waiting");
    let crowd: Vec<Peer> = (0..64).map(|_| connect(&daemon)).collect();
    crowd[0].expect_silence();
    let second = connect(&daemon);
    crowd[0].expect_end();
    crowd[1].expect_silence();
    second.send(entry.request("second").as_bytes());
    expect_introduction(&second, &waiting, "waiting", true);
    expect_introduction(&waiting, &second, "second", false);
}

#[test]
fn the_257th_waiting_peer_pushes_out_the_first() {
    let daemon = Setup::new(Mode::Plain).start();
    let entries: Vec<Direct> = (0..257).map(|_| Direct::add(&daemon)).collect();
    let waiting: Vec<Peer> = entries[..256].iter().map(|entry| entry.wait(&daemon, "one of many")).collect();
    waiting[0].expect_silence();
    let last = entries[256].wait(&daemon, "last");
    waiting[0].expect_clean_end();
    waiting[1].expect_silence();
    last.expect_silence();
    // Its entry is as good as new.
    entries[0].wait(&daemon, "back again");
    waiting[1].expect_clean_end();
}

#[test]
fn a_wrong_passkey_is_answered_late_and_a_right_one_at_once() {
    let daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let start = Instant::now();
    let guesses: Vec<Peer> = (0..4)
        .map(|_| {
            let stranger = connect(&daemon);
            stranger.send(request(&entry.id, "a guess", "stranger").as_bytes());
            stranger
        })
        .collect();
    let here = connect(&daemon);
    here.send(entry.request("here").as_bytes());
    expect_to_wait(&here);
    let waited = start.elapsed();
    guesses.iter().for_each(|guess| expect_not_authorized(guess));
    let took = start.elapsed();
    assert!(took >= 3 * SECOND && waited < took, "four guesses were answered in {took:?}, a right one in {waited:?}");
}

#[test]
fn entries_outlive_the_daemon() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let entry = Direct::add(&daemon);
    let waiting = entry.wait(&daemon, "before");
    assert!(daemon.terminate().success());
    waiting.expect_clean_end();
    daemon.start();
    entry.wait(&daemon, "after");
}

#[test]
fn a_port_that_is_taken_stops_nothing_else_and_is_tried_again() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    let port = daemon.ports.broker();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free");
    daemon.start();
    daemon.pair(&daemon.add_public(1));
    let entry = Direct::add(&daemon);
    let complaint = format!("broker's port {port}");
    assert!(daemon.log().contains(&complaint), "{}", daemon.log());
    drop(taken);
    let greets = || {
        let Ok(peer) = daemon.dial(port).without_tls().connect() else { return false };
        peer.send(entry.request("peer").as_bytes());
        matches!(peer.hear(PATIENCE), Heard::Message(_))
    };
    wait_until("the broker listens", PATIENCE, greets);
}

#[test]
fn without_a_broker_there_is_nobody_to_ask() {
    let daemon = Setup::new(Mode::Plain).without("broker").start();
    assert!(daemon.dial(daemon.ports.broker()).connect().is_err());
    let answer = daemon.controller().post("/api/v2/direct/add", "");
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("broker"), "{answer:?}");
}
