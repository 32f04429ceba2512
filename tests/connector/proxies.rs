//! Proxies in front of the user ports, and the PROXY headers that they send (docs/protocol.md, "Options").
//!
//! The daemon trusts 127.0.0.2. Headers are written out here, as the specification has them.

use crate::harness::{
    Daemon, Dial, Heard, Mapping, Mode, PATIENCE, Peer, Setup, for_both_modes, join, public_mapping, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

const PROXY: [u8; 4] = [127, 0, 0, 2];
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n";
/// The same as [`V1`], with a TLV of the proxy's own.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x07\xc6\x33\x64\x01\x9c\x40\x01\xbb\xe0\0\x02hi";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn behind_a_proxy(mode: Mode) -> Daemon {
    Setup::new(mode).set("trustproxy", json!(["127.0.0.2"])).start()
}

fn add(daemon: &Daemon, connections: u32, options: Value) -> Mapping {
    let mut mapping = public_mapping(connections, 0);
    mapping.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
    daemon.add(&mapping)
}

fn proxy(daemon: &Daemon, mapping: &Mapping) -> Dial {
    daemon.dial(mapping.ports[1]).from(PROXY)
}

/// A user whose proxy sends `header` in one piece.
fn user(daemon: &Daemon, mapping: &Mapping, header: &[u8]) -> Peer {
    proxy(daemon, mapping).after([header]).connect().expect("a connection")
}

/// Refused before TLS: a handshake fails, and without TLS the end comes.
fn is_refused(dial: &Dial) -> bool {
    match dial.connect() {
        Err(_) => true,
        Ok(peer) => matches!(peer.hear(PATIENCE), Heard::Ended(_)),
    }
}

fn said(header: &str, mapping: &Mapping) -> Vec<u8> {
    format!("PROXY {header} {}\r\n", mapping.ports[1]).into_bytes()
}

#[test]
fn a_user_comes_from_where_its_proxy_says() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({"proxyprotocol": "v1"}));
        for (header, told) in [(V1, V1), (V2, V1), (V1_IPV6, V1_IPV6)] {
            let whole = vec![header.to_vec()];
            let bytes: Vec<Vec<u8>> = header.iter().map(|byte| vec![*byte]).collect();
            let halves = vec![header[..13].to_vec(), header[13..].to_vec()];
            for pieces in [whole, bytes, halves] {
                let agent = daemon.agent(&mapping);
                let user = proxy(&daemon, &mapping).after(pieces).connect().expect("a connection");
                agent.expect(told);
                join(&agent, &user);
                user.reset();
                agent.expect_end();
            }
        }
    });
}

#[test]
fn payload_may_follow_the_header_in_the_same_segment() {
    let daemon = behind_a_proxy(Mode::Tls);
    let mapping = add(&daemon, 1, json!({"users": "plain"}));
    let agent = daemon.agent(&mapping);
    let bytes = [V2, b"PROXY is payload now"].concat();
    let user = proxy(&daemon, &mapping).without_tls().after([bytes]).connect().expect("a connection");
    agent.expect(b"PROXY is payload now");
    agent.send(b"indeed");
    user.expect(b"indeed");
}

#[test]
fn a_proxy_that_names_nobody_speaks_for_itself_and_gets_an_agent_when_it_says_something() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({"proxyprotocol": "v1", "allow": ["127.0.0.2"]}));
        for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
            let agent = daemon.agent(&mapping);
            let user = user(&daemon, &mapping, header);
            user.send(b"x");
            agent.expect(&said(&format!("TCP4 127.0.0.2 127.0.0.1 {}", user.local().port()), &mapping));
            agent.expect(b"x");
            join(&agent, &user);
            user.reset();
            agent.expect_end();
        }
        assert!(is_refused(&proxy(&daemon, &mapping).after([V1])), "192.0.2.7 is not in allow");
    });
}

#[test]
fn health_checks_of_a_proxy_take_no_agent() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({"proxyprotocol": "v2"}));
        let agent = daemon.agent(&mapping);
        for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n"] {
            // One that leaves as soon as it is connected, one that waits for an answer, one that resets.
            drop(user(&daemon, &mapping, header));
            let check = user(&daemon, &mapping, header);
            wait_until("it waits", PATIENCE, || daemon.controller().status(&mapping.id)["silent"] == 1);
            check.reset();
            wait_until("it has left", PATIENCE, || daemon.controller().status(&mapping.id)["users"] == 0);
        }
        assert_eq!(daemon.controller().status(&mapping.id)["free"], 1);
        let user = user(&daemon, &mapping, V1);
        agent.expect_some();
        agent.send(b"welcome");
        user.expect(b"welcome");
    });
}

#[test]
fn what_is_allowed_is_the_address_in_the_header() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 2, json!({"allow": ["192.0.2.0/24", "2001:db8::/32"]}));
        for header in [V1, V2, V1_IPV6] {
            let (agent, user) = (daemon.agent(&mapping), user(&daemon, &mapping, header));
            join(&agent, &user);
        }
        let other: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n";
        assert!(is_refused(&proxy(&daemon, &mapping).after([other])));
        let told = format!("Mapping {}, port {}: user 203.0.113.9:40000 refused", mapping.id, mapping.ports[1]);
        wait_until("the log has the address", PATIENCE, || daemon.log().contains(&told));
        assert!(is_refused(&daemon.dial(mapping.ports[1])), "an address that is not allowed, and no proxy's");
        assert!(is_refused(&daemon.dial(mapping.ports[1]).after([V1])), "and what it says of itself is nothing");
    });
}

#[test]
fn sessions_are_counted_by_the_address_in_the_header() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 3, json!({"maxusers": 1}));
        let agents = [daemon.agent(&mapping), daemon.agent(&mapping)];
        let users = [V1, V1_IPV6].map(|header| user(&daemon, &mapping, header));
        for (agent, user) in agents.iter().zip(&users) {
            join(agent, user);
        }
        let _free = daemon.agent(&mapping);
        let second = user(&daemon, &mapping, V2);
        second.send(b"once more");
        assert!(matches!(second.hear(PATIENCE), Heard::Ended(_)));
        // The last 64 bits of an IPv6 address are one's own choice.
        let neighbour = user(&daemon, &mapping, b"PROXY TCP6 2001:db8::8 2001:db8::1 40000 443\r\n");
        neighbour.send(b"once more");
        assert!(matches!(neighbour.hear(PATIENCE), Heard::Ended(_)));
    });
}

#[test]
fn a_proxy_that_says_something_else_is_closed() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({}));
        let agent = daemon.agent(&mapping);
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
        let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
        let other = b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c";
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 x y 1 2\r\n", b"\x16\x03\x01", &long, huge, other] {
            assert!(is_refused(&proxy(&daemon, &mapping).without_tls().after([bytes])), "{bytes:?}");
        }
        let told = format!("Mapping {}, port {}: 127.0.0.2", mapping.id, mapping.ports[1]);
        wait_until("the log names the proxy", PATIENCE, || {
            daemon.log().lines().any(|line| line.contains(&told) && line.contains("without a PROXY header"))
        });
        join(&agent, &user(&daemon, &mapping, V1));
    });
}

#[test]
fn a_proxy_that_says_nothing_is_closed_soon() {
    let daemon = behind_a_proxy(Mode::Plain);
    let mapping = add(&daemon, 1, json!({}));
    for beginning in [&b""[..], &V1[..20], &V2[..20]] {
        let (dial, start) = (proxy(&daemon, &mapping).after([beginning]), Instant::now());
        assert!(is_refused(&dial));
        assert!((2..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
}

#[test]
fn from_anybody_else_a_header_is_payload() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({"users": "plain", "proxyprotocol": "v1"}));
        for header in [V1, V2] {
            let agent = daemon.agent(&mapping);
            let dial = daemon.dial(mapping.ports[1]).without_tls();
            let user = dial.after([header]).connect().expect("a connection");
            agent.expect(&said(&format!("TCP4 127.0.0.1 127.0.0.1 {}", user.local().port()), &mapping));
            agent.expect(header);
            user.reset();
            agent.expect_end();
        }
    });
}

#[test]
fn agents_and_controllers_send_no_header() {
    for_both_modes(|mode| {
        let daemon = behind_a_proxy(mode);
        let mapping = add(&daemon, 1, json!({}));
        let agent = daemon.dial(mapping.ports[0]).from(PROXY).connect().expect("a connection");
        agent.authorize(&mapping, 0);
        join(&agent, &user(&daemon, &mapping, V1));
    });
}

#[test]
fn whom_to_trust_is_read_again() {
    for_both_modes(|mode| {
        let daemon = Setup::new(mode).start();
        let mapping = add(&daemon, 1, json!({}));
        let agent = daemon.agent(&mapping);
        join(&agent, &proxy(&daemon, &mapping).connect().expect("a connection"));
        let file = daemon.path("connector.conf");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        settings["trustproxy"] = json!(["127.0.0.0/30"]);
        fs::write(file, settings.to_string()).expect("a file");
        daemon.signal(libc::SIGHUP);
        wait_until("it is reloaded", PATIENCE, || daemon.log().contains("Reloaded"));
        agent.expect_end_at_last(PATIENCE);
        let agent = daemon.agent(&mapping);
        join(&agent, &user(&daemon, &mapping, V2));
        assert!(is_refused(&proxy(&daemon, &mapping).without_tls().after([&b"hello"[..]])));
    });
}
