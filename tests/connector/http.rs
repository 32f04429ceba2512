//! HTTP as other clients than ours write it, and the endpoints that introduce peers and stop the daemon.

use crate::harness::{Controller, Daemon, End, Heard, Mode, PATIENCE, Setup, in_both_modes, post, request, wait_until};
use serde_json::json;
use std::time::Duration;

const STATUS: &str = "/api/v2/status";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

/// A status request with these header lines and whatever is to follow them.
fn ask(version: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().chain(&[FORM]).flat_map(|line| [line, "\r\n"]).collect();
    format!("POST {STATUS} HTTP/{version}\r\n{headers}\r\n{body}")
}

#[test]
fn a_body_may_come_in_chunks() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        let chunks = "4;name=value\r\nmapp\r\n9\r\ningid=all\r\n0\r\nTrailer: x\r\n\r\n";
        for _ in 0..2 {
            let answer = connection.exchange(&ask("1.1", &["Host: x", "transfer-encoding: Chunked"], chunks));
            assert_eq!(answer.json()["id"], "all");
        }
    });
}

#[test]
fn who_asks_first_whether_to_go_on_is_told_to() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        let head = ask("1.1", &["Host: x", "Expect: 100-continue", "Content-Length: 13"], "");
        connection.send(&head).expect("sent");
        assert_eq!(connection.head_within(PATIENCE).expect("an answer").status, 100);
        assert_eq!(connection.exchange("mappingid=all").json()["id"], "all");
    });
}

#[test]
fn a_connection_is_kept_or_closed_as_the_caller_says() {
    in_both_modes(|daemon| {
        for (version, header, kept) in [
            ("1.1", "Host: x", true),
            ("1.1", "Host: x\r\nConnection: close", false),
            ("1.1", "host: x\r\nconnection: Close", false),
            ("1.0", "Host: x", false),
            ("1.0", "User-Agent: x", false),
        ] {
            let mut connection = daemon.controller().connect().expect("a connection");
            let answer = connection.exchange(&ask(version, &[header, "Content-Length: 13"], "mappingid=all"));
            assert_eq!(answer.status, 200, "{version} {header}");
            match kept {
                true => connection.peer.expect_silence(),
                false => assert_eq!(connection.peer.expect_end(), End::Clean, "{version} {header}"),
            }
        }
    });
}

#[test]
fn nobody_is_who_a_header_says() {
    let mut daemon = Setup::new(Mode::Plain).set("controllers", json!(["127.0.0.2"])).prepare();
    daemon.spawn();
    let listed = Controller { dial: daemon.dial(daemon.ports.api()).from([127, 0, 0, 2]) };
    wait_until("the API answers", PATIENCE, || listed.try_post(STATUS, "mappingid=all").is_ok());
    let mut stranger = daemon.controller().connect().expect("a connection");
    let headers = [FORM, "X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.2", "X-Real-IP: 127.0.0.2"];
    assert_eq!(stranger.exchange(&request("POST", STATUS, &headers, "mappingid=all")).status, 403);
    assert_eq!(listed.status("all")["status"], "running");
}

#[test]
fn an_empty_line_behind_a_request_is_not_the_beginning_of_another() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        assert_eq!(connection.exchange(&post(STATUS, "mappingid=all")).status, 200);
        connection.send("\r\n").expect("sent");
        // A request has 10 s from its first byte.
        assert_eq!(connection.peer.hear(Duration::from_secs(12)), Heard::Silence);
        assert_eq!(connection.exchange(&post(STATUS, "mappingid=all")).status, 200);
    });
}

#[test]
fn a_request_behind_another_is_not_smuggled() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        let two = format!("{}{}", post(STATUS, "mappingid=all"), "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
        // Two framings at once are refused, whatever stands behind them.
        let both = ask("1.1", &["Host: x", "Content-Length: 13", "Transfer-Encoding: chunked"], &two);
        assert_eq!(connection.exchange(&both).status, 400);
        assert!(matches!(connection.peer.hear(PATIENCE), Heard::Ended(_)));
    });
}

fn introduce(daemon: &Daemon, id: &str, passkey: &str, number: u16) -> serde_json::Value {
    let form = format!("id={id}&passkey={passkey}&port={number}&ip=10.0.0.{number}&certificate=CERT{number}");
    daemon.controller().post("/api/v2/direct", &form).json()
}

#[test]
fn the_second_peer_is_told_of_the_first() {
    in_both_modes(|daemon| {
        let entry = daemon.controller().post("/api/v2/direct/add", "").json();
        let [id, passkey] = ["id", "passkey"].map(|key| entry[key].as_str().expect("text").to_owned());
        daemon.keep_secret(&passkey);
        assert_eq!(entry["port"], daemon.ports.broker());
        for first in [1, 3] {
            assert_eq!(introduce(daemon, &id, "wrong", 9)["status"], "failed");
            assert_eq!(introduce(daemon, &id, &passkey, first)["status"], "wait");
            let met = introduce(daemon, &id, &passkey, first + 1);
            assert_eq!(met["status"], "ok");
            assert_eq!(met["ip"], format!("10.0.0.{first}"));
            assert_eq!(met["remoteip"], "127.0.0.1");
            assert_eq!(met["port"], first);
            assert_eq!(met["certificate"], format!("CERT{first}"));
        }
        assert_eq!(daemon.controller().post("/api/v2/direct/remove", &format!("mappingid={id}")).status, 200);
        assert_eq!(introduce(daemon, &id, &passkey, 5)["status"], "failed");
    });
}

#[test]
fn a_peer_that_asks_twice_is_not_told_of_itself() {
    in_both_modes(|daemon| {
        let entry = daemon.controller().post("/api/v2/direct/add", "").json();
        let [id, passkey] = ["id", "passkey"].map(|key| entry[key].as_str().expect("text").to_owned());
        for _ in 0..3 {
            assert_eq!(introduce(daemon, &id, &passkey, 1)["status"], "wait");
        }
        assert_eq!(introduce(daemon, &id, &passkey, 2)["certificate"], "CERT1");
    });
}

/// What a browser adds to a form that a page of some other site sends.
const PAGES: [&str; 5] = [
    "Origin: https://evil.example",
    "origin: null",
    "Origin:",
    "Sec-Fetch-Site: cross-site",
    "sec-fetch-site: same-site",
];

#[test]
fn forms_of_web_pages_are_refused_before_anything_is_done() {
    in_both_modes(|daemon| {
        let ask = |path: &str, header: &str, body: &str| {
            let mut connection = daemon.controller().connect().expect("a connection");
            connection.exchange(&request("POST", path, &[FORM, header], body))
        };
        let mapping = r#"mapping={"type":"public","maxconnections":1,"heartbeatabsencethreshold":0}"#;
        for page in PAGES {
            for (path, body) in [
                ("/api/v2/commandline", "command=stop&params="),
                ("/api/v2/mapping/add", mapping),
                ("/api/v2/direct/add", ""),
                ("/nothing", ""),
            ] {
                let answer = ask(path, page, body);
                assert_eq!(answer.status, 403, "{page}: {answer:?}");
                let json = answer.json();
                assert_eq!(json["status"], "failed", "{answer:?}");
                assert!(json["errormessage"].as_str().is_some_and(|text| text.contains("Origin")), "{answer:?}");
            }
        }
        // A person at a browser, and programs that fetch with a browser's library.
        let status = ask(STATUS, "Sec-Fetch-Site: none", "mappingid=all");
        assert_eq!((status.status, &status.json()["mappings"]), (200, &json!(0)));
        assert!(daemon.log().contains("refused: requests of web pages"), "{}", daemon.log());
    });
}

#[test]
fn a_page_is_refused_whatever_else_the_request_shows() {
    let daemon = Setup::new(Mode::Plain).set("apitoken", "token").prepare();
    std::fs::write(daemon.path("token"), "s3cret").expect("a file");
    let mut daemon = daemon;
    daemon.start();
    let token = "Authorization: Bearer s3cret";
    for (headers, status) in [
        (&[FORM, token][..], 200),
        (&[FORM], 401),
        (&[FORM, token, "Origin: http://a.example", "Origin: http://b.example"], 403),
        (&[FORM, "Origin: http://a.example"], 403),
    ] {
        let mut connection = daemon.controller().connect().expect("a connection");
        assert_eq!(connection.exchange(&request("POST", STATUS, headers, "mappingid=all")).status, status);
    }
    let mut connection = daemon.controller().connect().expect("a connection");
    let preflight = connection.exchange(&request("OPTIONS", STATUS, &["Origin: http://a.example"], ""));
    assert_eq!(preflight.status, 403);
    assert_eq!(preflight.header("access-control-allow-origin"), None);
}

#[test]
fn stop_over_the_api_ends_the_daemon() {
    in_both_modes(|daemon| {
        let answer = daemon.controller().post("/api/v2/commandline", "command=stop&params=").json();
        assert_eq!(answer["response"], "Connector stopped... :)");
        assert_eq!(daemon.wait().code(), Some(0));
    });
}
