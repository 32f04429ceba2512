//! mapping list, add, remove, show: what they print and what the daemon does.

use crate::harness::{Mode, Setup, in_both_modes};
use serde_json::Value;
use std::fs;

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
            "id\ttype\tport1\tstate1\tport2\tstate2\tagents\tusers\n\
             {id}\tpublic\t{agents}\tActive\t{users}\tActive\t0\t0\n"
        );
        assert_eq!((list.status, list.out), (0, expected));

        let shown = daemon.command(&["mapping", "show", id]);
        assert_eq!((shown.status, shown.fact("public")), (0, Some("Active")), "{shown:?}");
        assert_eq!(shown.fact("id"), Some(id));

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
