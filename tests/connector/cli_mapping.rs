//! mapping list, add, remove, show: what they print and what the daemon does.

use crate::harness::{Mode, Setup, in_both_modes};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

const EX_DATAERR: i32 = 65;
const EX_UNAVAILABLE: i32 = 69;
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;
const EX_USAGE: i32 = 64;

#[test]
fn a_mapping_is_added_listed_shown_and_removed() {
    in_both_modes(|daemon| {
        let added = daemon.command(&["mapping", "add", "--connections", "3", "--threshold", "0"]);
        assert_eq!((added.status, added.err.as_str()), (0, ""), "{added:?}");
        let id = added.fact("id").expect("an id");
        let ports = ["agents", "users"].map(|name| added.fact(name).and_then(|text| text.strip_prefix("port ")));
        let [Some(agents), Some(users)] = ports else { panic!("no ports in {added:?}") };
        assert!(added.fact("passcode 1").is_some_and(|code| code.len() == 36), "{added:?}");
        assert!(added.fact("passcode 2").is_none(), "{added:?}");
        daemon.keep_secret(added.fact("passcode 1").expect("a passcode"));

        let list = daemon.command(&["mapping", "list"]);
        let expected = format!(
            "id\tname\ttype\tport1\tstate1\tport2\tstate2\tagents\tusers\n\
             {id}\t\tpublic\t{agents}\tActive\t{users}\tActive\t0\t0\n"
        );
        assert_eq!((list.status, list.out), (0, expected));

        let shown = daemon.command(&["mapping", "show", id]);
        assert_eq!((shown.status, shown.fact("type"), shown.fact("id")), (0, Some("public"), Some(id)), "{shown:?}");
        let expected = [format!("{agents}, agents"), format!("{users}, users")].map(Some);
        assert_eq!(["port 1", "port 2"].map(|name| shown.fact(name).map(str::to_owned)), expected);
        let limits = "3 connections of agents, which may be silent for ever";
        assert_eq!((shown.fact("limits"), shown.fact("agents")), (Some(limits), Some("0 (0 free, 0 joined)")));
        assert!(shown.fact("since").is_some_and(|date| date.ends_with(" UTC")), "{shown:?}");

        let removed = daemon.command(&["mapping", "remove", id]);
        assert_eq!((removed.status, removed.out), (0, format!("removed {id}\n")));
        assert_eq!(daemon.controller().status("all")["mappings"], 0);
    });
}

#[test]
fn a_private_mapping_has_two_passcodes() {
    let daemon = Setup::new(Mode::Plain).start();
    let added = daemon.command(&["mapping", "add", "--private", "--json"]);
    let json: Value = serde_json::from_str(&added.out).expect("JSON");
    assert_eq!((added.status, json["passcode2"].as_str().map(str::len)), (0, Some(36)));
    let list: Value = serde_json::from_str(&daemon.command(&["mapping", "list", "--json"]).out).expect("JSON");
    assert_eq!((&list["mappings"][0]["type"], &list["mappings"][0]["port2"]), (&"private".into(), &json["port2"]));
    // As many as our agents keep, so that none of them is refused.
    let shown = daemon.command(&["mapping", "show", json["id"].as_str().expect("text")]);
    for limits in ["limits", "limits 2"] {
        assert!(shown.fact(limits).is_some_and(|text| text.starts_with("10 connections")), "{shown:?}");
    }
    assert!(!list.to_string().contains(json["passcode1"].as_str().expect("text")));
}

#[test]
fn what_the_daemon_refuses_is_said_with_its_reason() {
    let daemon = Setup::new(Mode::Plain).start();
    for action in ["show", "remove"] {
        let said = daemon.command(&["mapping", action, "no-such-id"]);
        assert_eq!((said.status, said.out.as_str()), (EX_DATAERR, ""), "{said:?}");
        assert!(said.err.contains("no-such-id") || said.err.contains("invalid id"), "{said:?}");
    }
    let said = daemon.command(&["mapping", "add", "--connections", "0"]);
    assert_eq!(said.status, EX_DATAERR, "{said:?}");
    assert!(said.err.contains("maxconnections"), "{said:?}");
    assert_eq!(daemon.command(&["mapping", "remove"]).status, EX_USAGE);
}

#[test]
fn without_a_daemon_the_place_where_it_should_be_is_named() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let said = daemon.command(&["mapping", "list"]);
    assert_eq!(said.status, EX_UNAVAILABLE, "{said:?}");
    assert!(said.err.contains(&format!("http://127.0.0.1:{}", daemon.ports.api())), "{said:?}");
    assert!(said.err.contains("apiport"), "{said:?}");
    fs::write(daemon.path("connector.conf"), "{}").expect("a file");
    let said = daemon.command(&["mapping", "list"]);
    assert_eq!(said.status, EX_CONFIG, "{said:?}");
}

#[test]
fn the_token_of_the_settings_is_shown_and_a_wrong_one_refused() {
    let mut daemon = Setup::new(Mode::Plain).set("apitoken", "token").prepare();
    fs::write(daemon.path("token"), "right\n").expect("a file");
    daemon.start();
    assert_eq!(daemon.command(&["mapping", "list"]).status, 0);
    fs::write(daemon.path("token"), "wrong\n").expect("a file");
    let said = daemon.command(&["mapping", "list"]);
    assert_eq!(said.status, EX_NOPERM, "{said:?}");
}

#[test]
fn options_are_given_and_shown_and_a_name_stands_for_the_id() {
    let daemon = Setup::new(Mode::Tls).start();
    let last = daemon.ports.mappings().1;
    let ports = [last.to_string(), (last - 1).to_string()];
    let added = daemon.command(&[
        "mapping",
        "add",
        "--name",
        "ssh",
        "--users",
        "plain",
        "--allow",
        "127.0.0.0/8",
        "--allow=::1",
        "--proxy-protocol",
        "v2",
        "--max-users",
        "3",
        "--wait-time",
        "9",
        "--idle-timeout",
        "3600",
        "--port1",
        &ports[0],
        "--port2",
        &ports[1],
    ]);
    assert_eq!((added.status, added.err.as_str()), (0, ""), "{added:?}");
    daemon.keep_secret(added.fact("passcode 1").expect("a passcode"));
    let id = added.fact("id").expect("an id");
    let shown = daemon.command(&["mapping", "show", "ssh"]);
    let (port1, port2) = (format!("{}, agents", ports[0]), format!("{}, users", ports[1]));
    for (name, value) in [
        ("id", id),
        ("name", "ssh"),
        ("port 1", &port1),
        ("port 2", &port2),
        ("users connect", "plain"),
        ("allow", "127.0.0.0/8, ::1"),
        ("proxy protocol", "v2"),
        ("max users", "3 sessions of one address"),
        ("wait time", "9 s"),
        ("idle timeout", "3600 s"),
    ] {
        assert_eq!(shown.fact(name), Some(value), "{shown:?}");
    }
    let json: Value = serde_json::from_str(&daemon.command(&["mapping", "show", id, "--json"]).out).expect("JSON");
    let options = serde_json::json!({"name": "ssh", "users": "plain", "allow": ["127.0.0.0/8", "::1"],
        "proxyprotocol": "v2", "maxusers": 3, "waittime": 9, "idletimeout": 3600});
    assert_eq!((&json["options"], &json["maxconnections"]), (&options, &60.into()));
    let list = daemon.command(&["mapping", "list"]);
    assert!(list.out.contains(&format!("{id}\tssh\tpublic\t{}\tActive\t{}", ports[0], ports[1])), "{list:?}");
    let said = daemon.command(&["mapping", "add", "--name", "ssh"]);
    assert!(said.status == EX_DATAERR && said.err.contains(id), "{said:?}");
    let said = daemon.command(&["mapping", "add", "--users", "raw"]);
    assert!(said.status == EX_DATAERR && said.err.contains("\"tls\" or \"plain\""), "{said:?}");
    let removed = daemon.command(&["mapping", "remove", "ssh"]);
    assert_eq!((removed.status, removed.out.as_str()), (0, "removed ssh\n"));
}

/// What listens at the API's port answers in JSON, and is something else.
#[test]
fn whatever_is_no_connectors_answer_is_said_to_be_none() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let listener = TcpListener::bind(("127.0.0.1", daemon.ports.api())).expect("a port");
    let commands: [&[&str]; 4] =
        [&["mapping", "list"], &["mapping", "show", "x"], &["mapping", "add"], &["mapping", "remove", "x"]];
    let answers =
        [("200 OK", "{}"), ("200 OK", "[]"), ("200 OK", "{\"mappings\":{},\"id\":1}"), ("404 Not Found", "{}")];
    let count = commands.len() * answers.len();
    let impostor = thread::spawn(move || {
        for (at, stream) in listener.incoming().take(count).enumerate() {
            let (mut stream, mut request) = (stream.expect("a caller"), [0; 4096]);
            let (status, body) = answers[at % answers.len()];
            let _ = stream.read(&mut request);
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("a reader");
        }
    });
    for words in commands {
        for answer in answers {
            let said = daemon.command(words);
            assert_eq!((said.status, said.out.as_str()), (EX_UNAVAILABLE, ""), "{words:?} {answer:?}: {said:?}");
            assert!(said.err.contains("is not a Connector's API: its answer"), "{words:?} {answer:?}: {said:?}");
        }
    }
    impostor.join().expect("it answered");
}
