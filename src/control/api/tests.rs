use super::*;
use crate::control::fake::FakeLoop;
use crate::limits::DIRECT_ENTRIES;
use crate::ports::PortSet;
use crate::store::Store;
use crate::testing::{Folder, Random};
use serde_json::Value;
use std::net::IpAddr;

const PUBLIC: &str = r#"mapping={"type":"public","maxconnections":60,"heartbeatabsencethreshold":200000}"#;
const PRIVATE: &str = r#"mapping={"type":"private","maxconnectionsport1":1, "maxconnectionsport2":2,
    "heartbeatabsencethresholdport1":200000, "heartbeatabsencethresholdport2":100000}"#;

/// An API on ports 6000 to 6005, with a loop that binds nothing.
struct Bench {
    api: Api,
    fake: FakeLoop,
    peer: ApiCaller,
    folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let fake = FakeLoop::default();
        let folder = Folder::new();
        let (store, mappings) = Store::open(&folder.0.join("configs.json")).unwrap();
        let usable = PortSet::usable(&["6000-6005".parse().unwrap()], &[]);
        let api = Api {
            registry: Registry::new(store, mappings, usable, Box::new(fake.clone())),
            access: Access::new(None, None),
            callers: Callers::default(),
            broker: Some(12345),
            dev: false,
            started: Instant::now(),
            reloads: Reloads::default(),
            answers: BTreeMap::new(),
        };
        Self {
            api,
            fake,
            peer: ApiCaller { ip: IpAddr::from([192, 0, 2, 1]), is_here: false, only_reads: false },
            folder,
        }
    }

    /// A well-formed call with nothing in it.
    fn call_to<'a>(&self, target: &'a str) -> Call<'a> {
        Call {
            method: "POST",
            target,
            content_type: Some(FORM),
            authorization: None,
            from_a_page: false,
            peer: self.peer,
            body: b"",
        }
    }

    fn call(&mut self, method: &str, target: &str, content_type: Option<&str>, body: &[u8]) -> Answer {
        let call = Call { method, content_type, body, ..self.call_to(target) };
        let Ok(answer) = self.api.answer(&call) else { panic!("the loop is gone") };
        self.api.registry.commit().unwrap().unwrap();
        answer
    }

    fn post(&mut self, target: &str, body: &str) -> (u16, Value) {
        let answer = self.call("POST", target, Some(FORM), body.as_bytes());
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    /// The keys of a 200, in their order.
    fn keys(&mut self, target: &str, body: &str) -> Vec<String> {
        let answer = self.call("POST", target, Some(FORM), body.as_bytes());
        assert_eq!(answer.status, 200, "{target} {body}: {}", answer.body);
        let fields: serde_json::Map<String, Value> = serde_json::from_str(&answer.body).unwrap();
        let mut keys: Vec<String> = fields.keys().cloned().collect();
        keys.sort_by_key(|key| answer.body.find(&format!("\"{key}\":")).unwrap());
        keys
    }

    fn add(&mut self, body: &str) -> Value {
        let (status, added) = self.post("/api/v2/mapping/add", body);
        assert_eq!(status, 200, "{added}");
        added
    }

    fn stored(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("configs.json")).unwrap_or_default()
    }

    /// A failed call in both generations' words: what `errormessage` says.
    fn failure(&mut self, target: &str, body: &str, expected: u16) -> String {
        let (status, answer) = self.post(target, body);
        assert_eq!((status, &answer["status"]), (expected, &"failed".into()), "{target} {body}: {answer}");
        assert!(answer["error"].is_string() && answer["timestamp"].is_u64(), "{answer}");
        answer["errormessage"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_public_mapping_is_added_shown_and_removed() {
    let mut bench = Bench::new();
    let added = bench.add(PUBLIC);
    assert_eq!((&added["port1"], &added["port2"], &added["passcode2"]), (&6000.into(), &6001.into(), &"".into()));
    let id = added["id"].as_str().unwrap().to_owned();
    for text in [&added["id"], &added["passcode1"]] {
        let uuid = uuid::Uuid::parse_str(text.as_str().unwrap()).unwrap();
        assert_eq!((uuid.get_version_num(), uuid.to_string().as_str()), (4, text.as_str().unwrap()));
    }
    assert!(bench.fake.world().open.contains_key(&id) && bench.stored().contains(&id));
    let (_, status) = bench.post("/api/v2/status", &format!("mappingid={id}"));
    assert_eq!((&status["public"], &status["private"]), (&"Active".into(), &"Active".into()));
    let (code, removed) = bench.post("/api/v2/mapping/remove", &format!("mappingid={id}"));
    assert_eq!((code, &removed["status"], &removed["id"]), (200, &"ok".into(), &id.as_str().into()));
    assert!(bench.fake.world().open.is_empty());
    assert_eq!(bench.stored(), r#"{"mappings":[]}"#);
    assert_eq!(bench.failure("/api/v2/mapping/remove", &format!("mappingid={id}"), 404), "invalid id");
}

#[test]
fn answers_have_the_recorded_keys_in_the_recorded_order() {
    let mut bench = Bench::new();
    let add = ["status", "id", "port1", "port2", "passcode1", "passcode2", "timestamp"];
    assert_eq!(bench.keys("/api/v2/mapping/add", PUBLIC), add);
    assert_eq!(bench.keys("/api/v2/mapping/add", PRIVATE), add);
    let private = bench.add(PRIVATE)["id"].as_str().unwrap().to_owned();
    let direct = bench.keys("/api/v2/direct/add", "");
    assert_eq!(direct, ["status", "id", "passkey", "port", "timestamp"]);
    let all = bench.keys("/api/v2/status", "mappingid=all");
    assert_eq!(all[..6], ["id", "timestamp", "status", "mappings", "version", "availablePorts"]);
    let one = bench.keys("/api/v2/status", &format!("mappingid={private}"));
    assert_eq!(one[..4], ["id", "timestamp", "private1", "private2"]);
    assert_eq!(bench.keys("/api/v2/commandline", "command=status&params="), ["response", "timestamp"]);
    let removed = bench.keys("/api/v2/mapping/remove", &format!("mappingid={private}"));
    assert_eq!(removed, ["status", "id", "timestamp"]);
    let answer = bench.call("POST", "/api/v2/status", Some(FORM), b"mappingid=nope");
    assert!(answer.body.starts_with(r#"{"status":"failed","error":"#), "{}", answer.body);
}

#[test]
fn status_of_all_counts_mappings_and_ports() {
    let mut bench = Bench::new();
    bench.add(PUBLIC);
    let (_, all) = bench.post("/api/v2/status", "mappingid=all");
    assert_eq!((&all["status"], &all["mappings"], &all["availablePorts"]), (&"running".into(), &1.into(), &4.into()));
    assert_eq!(all["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_port_that_is_not_bound_is_inactive() {
    let mut bench = Bench::new();
    let (public, private) = (bench.add(PUBLIC), bench.add(PRIVATE));
    bench.fake.world().foreign.extend([6001, 6002]);
    let status =
        |bench: &mut Bench, id: &Value| bench.post("/api/v2/status", &format!("mappingid={}", id.as_str().unwrap())).1;
    let status1 = status(&mut bench, &public["id"]);
    assert_eq!((&status1["public"], &status1["private"]), (&"Inactive".into(), &"Active".into()));
    let status2 = status(&mut bench, &private["id"]);
    assert_eq!((&status2["private1"], &status2["private2"]), (&"Inactive".into(), &"Active".into()));
}

#[test]
fn paths_methods_and_content_types_are_exact() {
    let mut bench = Bench::new();
    let mut status =
        |method: &str, target: &str, content_type| bench.call(method, target, content_type, PUBLIC.as_bytes());
    for target in ["/", "/foo", "/api/v2/status/", "/api/v2/status?x=1", "/api/v2/Status", "//api/v2/status", "*"] {
        assert_eq!(status("POST", target, Some(FORM)).status, 404, "{target}");
        assert_eq!(status("GET", target, None).status, 404, "{target}");
    }
    for method in ["GET", "HEAD", "PUT", "OPTIONS", "DELETE", "BREW", "post"] {
        let answer = status(method, "/api/v2/mapping/add", Some(FORM));
        assert_eq!((answer.status, answer.header), (405, Some(("Allow", "POST"))), "{method}");
    }
    for content_type in [None, Some(""), Some("application/json"), Some("application/x-www-form-urlencodedx")] {
        assert_eq!(status("POST", "/api/v2/mapping/add", content_type).status, 400, "{content_type:?}");
    }
    for content_type in ["Application/X-WWW-Form-UrlEncoded", "application/x-www-form-urlencoded; charset=utf-8"] {
        assert_eq!(status("POST", "/api/v2/mapping/add", Some(content_type)).status, 200, "{content_type}");
    }
}

#[test]
fn every_error_names_the_field() {
    let mut bench = Bench::new();
    let id = bench.add(PUBLIC)["id"].as_str().unwrap().to_owned();
    for (target, body, status, field) in [
        ("/api/v2/mapping/add", "", 400, "mapping is missing"),
        ("/api/v2/mapping/add", "mapping=hello", 400, "mapping is no JSON"),
        ("/api/v2/mapping/add", "mapping=[1]", 400, "mapping is [1]"),
        ("/api/v2/mapping/add", "mapping={}", 400, "type is missing"),
        ("/api/v2/mapping/add", r#"{"type":"public"}"#, 400, "maxconnections is missing"),
        ("/api/v2/mapping/add", r#"{"type":"public","type":"private"}"#, 400, "the key \"type\" is given twice"),
        ("/api/v2/mapping/remove", "x=1", 400, "mappingid is missing"),
        ("/api/v2/mapping/remove", "mappingid=", 404, "invalid id"),
        ("/api/v2/status", "", 400, "mappingid is missing"),
        ("/api/v2/status", "mappingid=", 404, "no mapping of the id or name \"\""),
        ("/api/v2/commandline", "x=1", 400, "command is missing"),
        ("/api/v2/commandline", "command=status&params=a b a d", 400, "params is naming \"a\" twice"),
        ("/api/v2/direct", "passkey=x", 400, "id is missing"),
        ("/api/v2/direct", "id=x", 400, "passkey is missing"),
        ("/api/v2/direct", "id=x&passkey=x", 400, "port is missing"),
        ("/api/v2/direct", "id=x&passkey=x&port=0", 400, "port is \"0\""),
        ("/api/v2/direct", "id=x&passkey=x&port=1", 400, "ip is missing"),
        ("/api/v2/direct", "id=x&passkey=x&port=1&ip=1", 400, "certificate is missing"),
        ("/api/v2/direct", "id=x&passkey=x&port=1&ip=1&certificate=c", 404, "no direct entry"),
        ("/api/v2/direct", &format!("id={id}&passkey=x&port=1&ip=1&certificate=c"), 404, "no direct entry"),
        ("/api/v2/direct/remove", "x=1", 400, "mappingid is missing"),
    ] {
        let message = bench.failure(target, body, status);
        assert!(message.contains(field), "{target} {body}: {message}");
    }
}

#[test]
fn commands_are_answered_and_stop_only_from_here() {
    let mut bench = Bench::new();
    let response = |bench: &mut Bench, command: &str| {
        let (_, answer) = bench.post("/api/v2/commandline", &format!("command={command}"));
        answer["response"].as_str().map(str::to_owned)
    };
    assert_eq!(response(&mut bench, "status").as_deref(), Some("Connector is up and running."));
    for command in ["version", "-v", "--version"] {
        assert_eq!(response(&mut bench, command).as_deref(), Some(commandline::VERSION));
    }
    for command in ["help", "-h", "-?", "--help", "bogus", ""] {
        assert_eq!(response(&mut bench, command).as_deref(), Some(commandline::HELP));
    }
    let stop = |bench: &mut Bench| bench.call("POST", "/api/v2/commandline", Some(FORM), b"command=stop");
    assert_eq!((stop(&mut bench).status, stop(&mut bench).stop), (403, None));
    bench.peer.is_here = true;
    let answer = stop(&mut bench);
    assert!(
        answer.stop.is_some() && answer.body.starts_with(r#"{"response":"Connector stopped... :)","#),
        "{}",
        answer.body
    );
}

#[test]
fn either_remove_takes_whatever_has_the_id_as_the_originals_did() {
    let mut bench = Bench::new();
    for (add, body, remove, field) in [
        ("/api/v2/mapping/add", PUBLIC, "/api/v2/direct/remove", "id"),
        ("/api/v2/direct/add", "", "/api/v2/mapping/remove", "mappingid"),
    ] {
        let (_, added) = bench.post(add, body);
        let id = added["id"].as_str().unwrap().to_owned();
        let (status, removed) = bench.post(remove, &format!("{field}={id}"));
        assert_eq!((status, &removed["status"], &removed["id"]), (200, &"ok".into(), &added["id"]), "{remove}");
        assert!(!bench.stored().contains(&id), "{remove}");
    }
}

#[test]
fn two_callers_of_a_direct_entry_meet() {
    let mut bench = Bench::new();
    let (_, entry) = bench.post("/api/v2/direct/add", "x=1");
    assert_eq!(entry["port"], 12345);
    let (id, passkey) = (entry["id"].as_str().unwrap(), entry["passkey"].as_str().unwrap());
    assert!(bench.stored().contains(passkey));
    let (_, status) = bench.post("/api/v2/status", &format!("mappingid={id}"));
    assert_eq!(status.as_object().unwrap().len(), 2, "{status}");
    let direct = |bench: &mut Bench, passkey: &str, port: u16| {
        let body = format!("id={id}&passkey={passkey}&port={port}&ip=10.0.0.{port}&certificate=CERT{port}");
        bench.post("/api/v2/direct", &body)
    };
    assert_eq!(direct(&mut bench, "wrong", 1).0, 404);
    assert_eq!(direct(&mut bench, passkey, 1).1["status"], "wait");
    let (_, met) = direct(&mut bench, passkey, 2);
    assert_eq!((&met["status"], &met["ip"], &met["port"]), (&"ok".into(), &"10.0.0.1".into(), &1.into()));
    assert_eq!((&met["remoteip"], &met["certificate"]), (&"192.0.2.1".into(), &"CERT1".into()));
    assert_eq!(direct(&mut bench, passkey, 3).1["status"], "wait");
    assert_eq!(bench.post("/api/v2/direct/remove", &format!("id={id}")).0, 200);
    assert_eq!(direct(&mut bench, passkey, 4).0, 404);
    assert_eq!(bench.failure("/api/v2/direct/remove", &format!("mappingid={id}"), 404), "invalid id");
}

#[test]
fn direct_entries_have_a_limit_beyond_which_the_file_is_left_alone() {
    let mut bench = Bench::new();
    let add = |bench: &mut Bench| {
        let call = Call { body: b"", ..bench.call_to("/api/v2/direct/add") };
        let Ok(answer) = bench.api.answer(&call) else { panic!("the loop is gone") };
        answer
    };
    let ids: Vec<String> = (0..DIRECT_ENTRIES)
        .map(|_| {
            let answer = add(&mut bench);
            assert_eq!(answer.status, 200, "{}", answer.body);
            serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    bench.api.registry.commit().unwrap().unwrap();
    std::fs::remove_file(bench.folder.0.join("configs.json")).unwrap();
    for _ in 0..10 {
        assert!(bench.failure("/api/v2/direct/add", "", 507).contains("1024 direct entries"));
    }
    assert_eq!(bench.stored(), "", "the file was written again");
    assert_eq!(bench.fake.world().open.len(), DIRECT_ENTRIES);
    // A mapping is no direct entry, and one that goes makes room for another.
    bench.add(PUBLIC);
    assert_eq!(bench.post("/api/v2/direct/remove", &format!("id={}", ids[0])).0, 200);
    assert_eq!(add(&mut bench).status, 200);
    bench.failure("/api/v2/direct/add", "", 507);
}

#[test]
fn without_a_broker_there_is_nothing_direct() {
    let mut bench = Bench::new();
    bench.api.broker = None;
    assert!(bench.failure("/api/v2/direct/add", "", 409).contains("broker"));
}

#[test]
fn ports_of_other_programs_are_skipped_and_tried_again_later() {
    let mut bench = Bench::new();
    bench.fake.world().foreign.extend([6000, 6002]);
    let added = bench.add(PUBLIC);
    assert_eq!((&added["port1"], &added["port2"]), (&6001.into(), &6003.into()));
    bench.fake.world().foreign.insert(6004);
    assert!(bench.failure("/api/v2/mapping/add", PUBLIC, 507).contains("ports"));
    bench.fake.world().foreign.clear();
    let ports: Vec<u64> = (0..2)
        .flat_map(|_| {
            let added = bench.add(PRIVATE);
            [added["port1"].as_u64().unwrap(), added["port2"].as_u64().unwrap()]
        })
        .collect();
    assert_eq!(ports.iter().copied().collect::<std::collections::BTreeSet<_>>(), [6000, 6002, 6004, 6005].into());
    assert!(bench.failure("/api/v2/mapping/add", PUBLIC, 507).contains("ports"));
}

#[test]
fn a_port_just_given_up_is_the_last_to_come_back() {
    let mut bench = Bench::new();
    let first = bench.add(PUBLIC);
    bench.post("/api/v2/mapping/remove", &format!("mappingid={}", first["id"].as_str().unwrap()));
    let ports: Vec<Value> = (0..3).map(|_| bench.add(PUBLIC)["port1"].clone()).collect();
    assert_eq!(ports, [6002, 6004, 6000]);
}

#[test]
fn what_is_no_ports_fault_is_said_at_once() {
    let mut bench = Bench::new();
    bench.fake.world().broken = Some(std::io::ErrorKind::AddrNotAvailable);
    assert!(bench.failure("/api/v2/mapping/add", PUBLIC, 500).contains("port 6000 could not be opened"));
    assert_eq!(bench.api.registry.ports.available(), 6);
}

#[test]
fn a_change_that_cannot_be_saved_is_taken_back() {
    let mut bench = Bench::new();
    let kept = bench.add(PUBLIC)["id"].as_str().unwrap().to_owned();
    let before = bench.stored();
    let parked = bench.folder.0.with_extension("parked");
    std::fs::rename(&bench.folder.0, &parked).unwrap();
    for body in [PUBLIC.to_owned(), format!("mappingid={kept}")] {
        let target = if body == PUBLIC { "/api/v2/mapping/add" } else { "/api/v2/mapping/remove" };
        let call = Call { body: body.as_bytes(), ..bench.call_to(target) };
        assert!(matches!(bench.api.answer(&call), Ok(Answer { status: 200, .. })));
        assert!(bench.api.registry.commit().unwrap().is_err());
        assert_eq!((bench.api.registry.mappings().len(), bench.api.registry.ports.available()), (1, 4));
        assert_eq!(bench.fake.world().open.keys().collect::<Vec<_>>(), [&kept]);
    }
    std::fs::rename(&parked, &bench.folder.0).unwrap();
    assert_eq!(bench.stored(), before);
    bench.add(PUBLIC);
}

/// Mutations of recorded bodies: never a 5xx but 507, never a panic, never a leaked port.
#[test]
fn mutated_bodies_are_answered() {
    let mut bench = Bench::new();
    let mut random = Random::new(11);
    let seeds =
        [PUBLIC, PRIVATE, "mappingid=all", "command=stop&params=a b", "id=x&passkey=y&port=1&ip=1&certificate=c"];
    for _ in 0..2_000 {
        let mut body = seeds[random.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(body.len());
            match random.below(3) {
                0 => body[at] = random.next() as u8,
                1 => drop(body.splice(at..at, *b"&mapping=%7B\"")),
                _ => body.truncate(at + 1),
            }
        }
        let target = ENDPOINTS[random.below(ENDPOINTS.len())].0;
        let answer = bench.call("POST", target, Some(FORM), &body);
        let text = String::from_utf8_lossy(&body);
        assert!(answer.status < 500 || answer.status == 507, "{target} {text}: {} {}", answer.status, answer.body);
        assert!(serde_json::from_str::<Value>(&answer.body).is_ok(), "{}", answer.body);
        assert_eq!(answer.body.contains("errormessage"), answer.status != 200, "{target} {text}: {}", answer.body);
        if random.below(3) == 0 {
            let ids: Vec<String> = bench.fake.world().open.keys().cloned().collect();
            assert!(ids.iter().all(|id| bench.api.registry.remove(id, bench.peer.ip).is_some()));
            bench.api.registry.commit().unwrap().unwrap();
            assert_eq!((bench.api.registry.mappings().len(), bench.api.registry.ports.available()), (0, 6));
        }
    }
}

/// A public mapping with these keys besides.
fn public_with(keys: &str) -> String {
    format!(r#"{{"type":"public","maxconnections":1,"heartbeatabsencethreshold":0,{keys}}}"#)
}

#[test]
fn a_mapping_is_called_by_its_name_or_its_id() {
    let mut bench = Bench::new();
    let added = bench.add(&public_with(r#""name":"web""#));
    let id = added["id"].as_str().unwrap();
    for called in [id, "web"] {
        let (_, status) = bench.post("/api/v2/status", &format!("mappingid={called}"));
        assert_eq!((&status["id"], &status["options"]["name"]), (&id.into(), &"web".into()));
    }
    let refusal = bench.failure("/api/v2/mapping/add", &public_with(r#""name":"web""#), 409);
    assert!(refusal.contains("name is \"web\"") && refusal.contains(id), "{refusal}");
    bench.add(&public_with(r#""name":"Web""#));
    assert_eq!(bench.post("/api/v2/mapping/remove", "mappingid=web").1["id"], id);
    bench.add(&public_with(r#""name":"web""#));
}

#[test]
fn a_name_is_no_id() {
    let mut bench = Bench::new();
    let id = bench.add(PUBLIC)["id"].as_str().unwrap().to_owned();
    for name in [&*id, &id.to_uppercase(), "all", "a b", ""] {
        let refusal = bench.failure("/api/v2/mapping/add", &public_with(&format!(r#""name":"{name}""#)), 400);
        assert!(refusal.contains("no UUID"), "{refusal}");
    }
}

#[test]
fn a_stored_id_that_is_no_uuid_is_no_name_either() {
    let mut bench = Bench::new();
    bench.add(PUBLIC);
    let id = bench.api.registry.mappings().keys().next().unwrap().clone();
    let stored = bench.stored().replace(&id, "by-hand");
    std::fs::write(bench.folder.0.join("configs.json"), stored).unwrap();
    let (store, mappings) = Store::open(&bench.folder.0.join("configs.json")).unwrap();
    let usable = PortSet::usable(&["6000-6005".parse().unwrap()], &[]);
    bench.api.registry = Registry::new(store, mappings, usable, Box::new(bench.fake.clone()));
    bench.failure("/api/v2/mapping/add", &public_with(r#""name":"by-hand""#), 409);
}

#[test]
fn fixed_ports_are_had_or_refused() {
    let mut bench = Bench::new();
    let added = bench.add(&public_with(r#""port2":6000"#));
    assert_eq!((&added["port1"], &added["port2"]), (&6001.into(), &6000.into()));
    let id = added["id"].as_str().unwrap();
    let mut refused = |keys: &str, status, words: &str| {
        let refusal = bench.failure("/api/v2/mapping/add", &public_with(keys), status);
        assert!(refusal.contains(words), "{keys}: {refusal}");
    };
    refused(r#""port1":80"#, 400, "port1 is 80, expected a port that the settings list for mappings: 6000-6005");
    refused(r#""port1":"6002""#, 400, "port1 is \"6002\"");
    refused(r#""port1":6002,"port2":6002"#, 400, "port2");
    refused(r#""port1":6002,"port2":6001"#, 409, &format!("port2 is 6001, which the mapping {id} has"));
    bench.fake.world().foreign.insert(6003);
    let refusal = bench.failure("/api/v2/mapping/add", &public_with(r#""port1":6002,"port2":6003"#), 409);
    assert!(refusal.contains("port 6003 could not be opened"), "{refusal}");
    assert_eq!(bench.api.registry.ports.available(), 4, "what was refused has kept a port");
    // The other one is looked for as ever.
    let added = bench.add(&public_with(r#""port2":6002"#));
    assert_eq!((&added["port1"], &added["port2"]), (&6004.into(), &6002.into()));
    // And has it again once it is free.
    assert_eq!(bench.post("/api/v2/mapping/remove", &format!("mappingid={}", added["id"].as_str().unwrap())).0, 200);
    let again = bench.add(&public_with(r#""port1":6004,"port2":6002"#));
    assert_eq!((&again["port1"], &again["port2"]), (&6004.into(), &6002.into()));
}

#[test]
fn in_dev_mode_no_user_can_have_tls() {
    let mut bench = Bench::new();
    bench.add(&public_with(r#""users":"tls""#));
    bench.api.dev = true;
    let refusal = bench.failure("/api/v2/mapping/add", &public_with(r#""users":"tls""#), 400);
    assert!(refusal.contains("users is \"tls\"") && refusal.contains("dev mode"), "{refusal}");
    bench.add(&public_with(r#""users":"plain""#));
}

#[test]
fn a_loop_that_does_not_turn_is_not_healthy() {
    let mut bench = Bench::new();
    assert_eq!(bench.call("GET", "/healthz", None, b"").status, 200);
    bench.fake.world().stuck = true;
    let answer = bench.call("GET", "/healthz", None, b"");
    assert!(answer.status == 503 && answer.body.contains("has not turned for 1 s"), "{answer:?}");
}
