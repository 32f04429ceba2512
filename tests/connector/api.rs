//! The control API: what a Controller asks and is told (docs/protocol.md, "Control API").

use crate::harness::{
    Answer, Controller, Daemon, Mapping, Mode, PATIENCE, Setup, form, in_both_modes, post, private_mapping,
    public_mapping, request, wait_until,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

const ADD: &str = "/api/v2/mapping/add";
const REMOVE: &str = "/api/v2/mapping/remove";
const STATUS: &str = "/api/v2/status";

#[track_caller]
fn expect_timestamp(answer: &Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let then = answer["timestamp"].as_i64().expect("a timestamp");
    assert!((now - 60_000..=now + 1000).contains(&then), "{then} is not milliseconds since the epoch");
}

/// A refusal as both generations of Controllers know it, which names `field`.
#[track_caller]
fn expect_refusal(answer: &Answer, status: u16, field: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let json = answer.json();
    assert_eq!(json["status"], "failed", "{answer:?}");
    for key in ["error", "errormessage"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "no {key} in {answer:?}");
    }
    assert!(json["errormessage"].as_str().expect("text").contains(field), "{field} is not named in {answer:?}");
    expect_timestamp(&json);
}

#[track_caller]
fn expect_uuid_v4(text: &str) {
    let fits = text.len() == 36
        && text.char_indices().all(|(place, c)| match place {
            8 | 13 | 18 | 23 => c == '-',
            14 => c == '4',
            19 => "89ab".contains(c),
            _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
        });
    assert!(fits, "{text} is not a lower-case UUID version 4");
}

#[test]
fn an_added_mapping_has_two_ports_and_fresh_secrets() {
    in_both_modes(|daemon| {
        let (first, last) = daemon.ports.mappings();
        for (json, passcodes) in [(public_mapping(60, 200_000), 1), (private_mapping(1, 200_000), 2)] {
            let answer = daemon.controller().post(ADD, &form("mapping", &json.to_string()));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            expect_timestamp(&answer.json());
            let mapping = daemon.add(&json);
            expect_uuid_v4(&mapping.id);
            mapping.passcodes[..passcodes].iter().for_each(|passcode| expect_uuid_v4(passcode));
            assert!(mapping.passcodes[passcodes..].iter().all(|passcode| passcode.is_empty()));
            assert_ne!(mapping.ports[0], mapping.ports[1]);
            assert!(mapping.ports.iter().all(|port| (first..=last).contains(port)), "{:?}", mapping.ports);
        }
    });
}

#[test]
fn a_mapping_may_come_encoded_raw_or_bare() {
    let daemon = Setup::new(Mode::Plain).start();
    let json = public_mapping(60, 200_000).to_string();
    for body in [form("mapping", &json), format!("mapping={json}"), json.clone(), form("mapping", &format!(" {json}"))]
    {
        let answer = daemon.controller().post(ADD, &body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    let charset = ["Content-Type: application/x-www-form-urlencoded; charset=utf-8"];
    let mut connection = daemon.controller().connect().expect("a connection");
    assert_eq!(connection.exchange(&request("POST", ADD, &charset, &format!("mapping={json}"))).status, 200);
    let two = format!("mapping={{\"type\":\"zzz\"}}&mapping={json}");
    expect_refusal(&daemon.controller().post(ADD, &two), 400, "type");
}

#[test]
fn numbers_at_their_limits_are_taken() {
    let daemon = Setup::new(Mode::Plain).start();
    for (connections, absence) in [(1, 0), (65_535, 2_147_483_647)] {
        daemon.add(&public_mapping(connections, absence));
        daemon.add(&private_mapping(connections, absence));
    }
    let mut further = public_mapping(1, 1);
    further["zzz"] = json!({"ignored": true});
    daemon.add(&further);
}

#[test]
fn a_wrong_or_missing_field_is_named() {
    let daemon = Setup::new(Mode::Plain).start();
    let refused = |mapping: &Value, field: &str| {
        expect_refusal(&daemon.controller().post(ADD, &form("mapping", &mapping.to_string())), 400, field);
    };
    for mapping in [public_mapping(1, 1), private_mapping(1, 1)] {
        for field in mapping.as_object().expect("an object").keys() {
            let mut without = mapping.clone();
            without.as_object_mut().expect("an object").remove(field);
            refused(&without, field);
            for wrong in [json!("1"), json!(null), json!(2.7), json!(-1), json!(99_999_999_999_u64), json!([1])] {
                let mut with = mapping.clone();
                with[field] = wrong;
                refused(&with, field);
            }
        }
    }
    for (field, wrong) in [("maxconnections", json!(0)), ("maxconnections", json!(65_536)), ("type", json!("PUBLIC"))] {
        let mut with = public_mapping(1, 1);
        with[field] = wrong;
        refused(&with, field);
    }
    for body in ["", "x=1", "mapping=", "mapping=hello", "mapping=%7B", "mapping=[1]", "mapping=%7G", "{", "[]"] {
        expect_refusal(&daemon.controller().post(ADD, body), 400, "mapping");
    }
    assert_eq!(daemon.controller().status("all")["mappings"], 0);
}

#[test]
fn removing_is_answered_once() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let answer = daemon.controller().post(REMOVE, &form("mappingid", &mapping.id)).json();
        assert_eq!((&answer["status"], &answer["id"]), (&json!("ok"), &json!(mapping.id)));
        expect_timestamp(&answer);
        for id in [mapping.id.as_str(), "nope", ""] {
            expect_refusal(&daemon.controller().post(REMOVE, &form("mappingid", id)), 404, "");
        }
        expect_refusal(&daemon.controller().post(REMOVE, "id=1"), 400, "mappingid");
        assert!(daemon.dial(mapping.ports[0]).connect().is_err(), "a port of the removed mapping is open");
    });
}

#[test]
fn status_tells_of_all_and_of_one() {
    in_both_modes(|daemon| {
        let before = daemon.controller().status("all");
        let [public, private] = [daemon.add_public(1), daemon.add_private(1)];
        let all = daemon.controller().status("all");
        assert_eq!((&all["id"], &all["status"], &all["mappings"]), (&json!("all"), &json!("running"), &json!(2)));
        assert_eq!(all["version"], env!("CARGO_PKG_VERSION"));
        let free = |status: &Value| status["availablePorts"].as_u64().expect("a number");
        assert_eq!(free(&before) - free(&all), 4);
        expect_timestamp(&all);
        for (mapping, ends) in [(public, ["public", "private"]), (private, ["private1", "private2"])] {
            let status = daemon.controller().status(&mapping.id);
            assert_eq!(status["id"], mapping.id);
            ends.iter().for_each(|end| assert_eq!(status[end], "Active"));
            expect_timestamp(&status);
        }
        expect_refusal(&daemon.controller().post(STATUS, "mappingid=nope"), 404, "nope");
        expect_refusal(&daemon.controller().post(STATUS, "foo=bar"), 400, "mappingid");
    });
}

#[test]
fn whatever_is_no_post_of_a_form_to_a_known_path_is_refused() {
    let daemon = Setup::new(Mode::Plain).start();
    let form_type = ["Content-Type: application/x-www-form-urlencoded"];
    for (method, path, types, status) in [
        ("GET", STATUS, &form_type[..], 405),
        ("PUT", ADD, &form_type, 405),
        ("DELETE", REMOVE, &form_type, 405),
        ("OPTIONS", STATUS, &form_type, 405),
        ("POST", "/", &form_type, 404),
        ("POST", "/foo", &form_type, 404),
        ("POST", "/api/v2/status/", &form_type, 404),
        ("POST", "/api/v2/status?x=1", &form_type, 404),
        ("POST", "/API/v2/status", &form_type, 404),
        ("POST", STATUS, &["Content-Type: application/json"], 400),
        ("POST", STATUS, &["Content-Type: application/x-www-form-urlencodedx"], 400),
        ("POST", STATUS, &[], 400),
    ] {
        let mut connection = daemon.controller().connect().expect("a connection");
        let answer = connection.exchange(&request(method, path, types, "mappingid=all"));
        expect_refusal(&answer, status, "");
    }
}

#[test]
fn a_body_of_64_kib_is_the_largest() {
    in_both_modes(|daemon| {
        let body = |length: usize| format!("mappingid=all&x={}", "y".repeat(length - 16));
        assert_eq!(daemon.controller().post(STATUS, &body(65_536)).status, 200);
        expect_refusal(&daemon.controller().post(STATUS, &body(65_537)), 413, "");
        expect_refusal(&daemon.controller().post(STATUS, &body(70_000)), 413, "");
    });
}

#[test]
fn one_connection_serves_many_requests() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        for _ in 0..100 {
            assert_eq!(connection.exchange(&post(STATUS, "mappingid=all")).status, 200);
        }
        let refused = connection.exchange(&post(STATUS, "mappingid=nope"));
        assert_eq!(refused.status, 404);
        // Two at once, answered in order.
        let both = connection.exchange(&[post(STATUS, "mappingid=all"), post(STATUS, "mappingid=nope")].concat());
        assert_eq!(both.json()["id"], "all");
        assert_eq!(connection.answer_within(PATIENCE).expect("the second answer").status, 404);
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    in_both_modes(|daemon| {
        let mut connection = daemon.controller().connect().expect("a connection");
        for byte in post(STATUS, "mappingid=all").bytes() {
            connection.peer.send(&[byte]);
        }
        assert_eq!(connection.answer_within(PATIENCE).expect("an answer").json()["id"], "all");
    });
}

#[test]
fn only_listed_controllers_may_call() {
    let start = |controllers: Value| Setup::new(Mode::Plain).set("controllers", controllers).prepare();
    let mut daemon = start(json!(["10.1.2.3", "127.0.0.2/31", "::1"]));
    daemon.spawn();
    let listed = Controller { dial: daemon.dial(daemon.ports.api()).from([127, 0, 0, 3]) };
    wait_until("the API answers", PATIENCE, || listed.try_post(STATUS, "").is_ok());
    assert_eq!(listed.status("all")["status"], "running");
    for path in [ADD, REMOVE, STATUS, "/nothing"] {
        expect_refusal(&daemon.controller().post(path, "mappingid=all"), 403, "");
    }
}

#[test]
fn configs_json_has_the_originals_format() {
    let daemon = Setup::new(Mode::Plain).start();
    let public = daemon.add(&public_mapping(60, 200_000));
    let private = daemon.add(&json!({
        "type": "private", "maxconnectionsport1": 1, "maxconnectionsport2": 2,
        "heartbeatabsencethresholdport1": 3, "heartbeatabsencethresholdport2": 4,
    }));
    let stored = |daemon: &Daemon| -> Value {
        serde_json::from_slice(&fs::read(daemon.path("configs.json")).expect("a file")).expect("JSON")
    };
    let entry = |mapping: &Mapping, connections: [u32; 2], absence: [u32; 2]| {
        json!({
            "id": mapping.id,
            "port1": mapping.ports[0], "port2": mapping.ports[1],
            "maxconnectionsport1": connections[0], "maxconnectionsport2": connections[1],
            "passcodeport1": mapping.passcodes[0], "passcodeport2": mapping.passcodes[1],
            "heartbeatabsencethresholdport1": absence[0], "heartbeatabsencethresholdport2": absence[1],
        })
    };
    let private = entry(&private, [1, 2], [3, 4]);
    let mut all = stored(&daemon)["mappings"].as_array().expect("a list").clone();
    all.sort_by_key(|mapping| mapping["passcodeport2"].as_str().map(str::len));
    assert_eq!(all, [entry(&public, [60, 60], [200_000, 0]), private.clone()]);
    daemon.controller().remove(&public);
    assert_eq!(stored(&daemon), json!({"mappings": [private]}));
    let names: Vec<_> =
        fs::read_dir(daemon.folder()).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
    let leftover = names.iter().find(|name| name.to_string_lossy().contains("configs") && *name != "configs.json");
    assert_eq!(leftover, None);
}

#[test]
fn ports_are_handed_out_in_turn_and_run_out() {
    let daemon = Setup::new(Mode::Plain).first_ports(6).start();
    let (first, _) = daemon.ports.mappings();
    let [a, b] = [daemon.add_public(1), daemon.add_public(1)];
    daemon.controller().remove(&a);
    let c = daemon.add_public(1);
    assert!(c.ports.iter().all(|port| !a.ports.contains(port)), "{:?} came back at once", a.ports);
    let d = daemon.add_public(1);
    let mut used: Vec<u16> = [&b, &c, &d].iter().flat_map(|mapping| mapping.ports).collect();
    used.sort();
    assert_eq!(used, (first..first + 6).collect::<Vec<_>>());
    let full = daemon.controller().post(ADD, &form("mapping", &public_mapping(1, 0).to_string()));
    expect_refusal(&full, 507, "port");
    assert_eq!(daemon.controller().status("all")["mappings"], 3);
    daemon.controller().remove(&d);
    daemon.pair(&daemon.add_public(1));
}

#[test]
fn a_port_that_another_program_has_is_skipped() {
    let daemon = Setup::new(Mode::Plain).first_ports(5).start();
    let (first, _) = daemon.ports.mappings();
    let taken = [first, first + 2, first + 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free"));
    let mapping = daemon.add_public(1);
    daemon.pair(&mapping);
    let mut ports = mapping.ports;
    ports.sort();
    assert_eq!(ports, [first + 1, first + 4]);
    drop(taken);
    daemon.pair(&daemon.add_public(1));
}

#[test]
fn many_controllers_at_once_get_a_mapping_each() {
    in_both_modes(|daemon| {
        let mappings: Vec<Mapping> = thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| [0; 3].map(|_| daemon.add_public(1)))).collect();
            callers.into_iter().flat_map(|caller| caller.join().expect("three mappings")).collect()
        });
        let ports: HashSet<u16> = mappings.iter().flat_map(|mapping| mapping.ports).collect();
        let ids: HashSet<&String> = mappings.iter().map(|mapping| &mapping.id).collect();
        assert_eq!((ports.len(), ids.len()), (48, 24));
        let stored = fs::read_to_string(daemon.path("configs.json")).expect("a file");
        assert!(ids.iter().all(|id| stored.contains(*id)));
    });
}
