//! Options of a mapping, towards users and towards agents that know nothing of them (docs/protocol.md, "Options").

use crate::harness::{
    Daemon, Heard, Mapping, Mode, PATIENCE, Peer, Setup, form, in_both_modes, join, private_mapping, public_mapping,
    wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A public mapping with these options.
fn add(daemon: &Daemon, connections: u32, options: Value) -> Mapping {
    let mut mapping = public_mapping(connections, 0);
    let fields = mapping.as_object_mut().expect("an object");
    fields.extend(options.as_object().expect("an object").clone());
    daemon.add(&mapping)
}

fn plain_user(daemon: &Daemon, mapping: &Mapping) -> Peer {
    daemon.dial(mapping.ports[1]).without_tls().connect().expect("a connection")
}

fn header_v1(mapping: &Mapping, user: &Peer) -> Vec<u8> {
    let (from, to) = (user.local(), mapping.ports[1]);
    format!("PROXY TCP4 {} 127.0.0.1 {} {to}\r\n", from.ip(), from.port()).into_bytes()
}

#[test]
fn plain_users_and_agents_with_tls_are_joined_and_half_close_works() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = add(&daemon, 2, json!({"users": "plain"}));
    let (agent, user) = (daemon.agent(&mapping), plain_user(&daemon, &mapping));
    join(&agent, &user);
    agent.send(b"answer");
    user.expect(b"answer");
    user.send(b"the whole question");
    agent.expect(b"the whole question");
    user.finish();
    agent.send(b"late answer");
    user.expect(b"late answer");
    agent.finish();
    user.expect_clean_end();
}

#[test]
fn an_agent_is_told_where_its_user_comes_from_before_the_user_says_anything() {
    in_both_modes(|daemon| {
        for (version, is_named) in [("v1", true), ("v2", true), ("v2", false)] {
            let mapping = add(daemon, 2, json!({"proxyprotocol": version}));
            let dial = daemon.dial(mapping.ports[1]);
            let dial = if is_named { dial } else { dial.without_server_name() };
            let (agent, user) = (daemon.agent(&mapping), dial.connect().expect("a connection"));
            let header = match agent.hear(PATIENCE) {
                Heard::Message(bytes) => bytes,
                other => panic!("{other:?} instead of a header"),
            };
            if version == "v1" {
                assert_eq!(header, header_v1(&mapping, &user), "{}", String::from_utf8_lossy(&header));
            } else {
                let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
                let tls = daemon.mode == Mode::Tls;
                let named = tls && is_named;
                expected.extend([0, 12 + if tls { 18 } else { 0 } + if named { 12 } else { 0 }]);
                expected.extend([127, 0, 0, 1, 127, 0, 0, 1]);
                expected.extend(user.local().port().to_be_bytes());
                expected.extend(mapping.ports[1].to_be_bytes());
                if named {
                    expected.extend(b"\x02\0\x09localhost");
                }
                if tls {
                    expected.extend(b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3");
                }
                assert_eq!(header, expected);
            }
            // The service may speak first.
            agent.send(b"220 ready");
            user.expect(b"220 ready");
            user.send(b"HELO");
            agent.expect(b"HELO");
            let status = daemon.controller().status(&mapping.id);
            assert_eq!((&status["bytesport1"], &status["bytesport2"]), (&9.into(), &4.into()), "{status}");
        }
    });
}

#[test]
fn only_who_is_allowed_may_use_the_user_port() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 3, json!({"allow": ["127.0.0.1", "127.0.1.0/24"]}));
        let others = daemon.dial(mapping.ports[1]).from([127, 0, 0, 2]).without_tls().connect().expect("a connection");
        assert!(matches!(others.hear(PATIENCE), Heard::Ended(_)));
        for address in [[127, 0, 0, 1], [127, 0, 1, 7]] {
            let agent = daemon.agent(&mapping);
            let user = daemon.dial(mapping.ports[1]).from(address).connect().expect("a connection");
            join(&agent, &user);
        }
        let told = format!("Mapping {}, port {}: user {} refused", mapping.id, mapping.ports[1], others.local());
        wait_until("the log tells of it", PATIENCE, || daemon.log().contains(&told));
    });
}

#[test]
fn a_session_in_which_nothing_moves_is_ended() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 2, json!({"idletimeout": 1}));
        let ([agent, other_agent], start) = ([daemon.agent(&mapping), daemon.agent(&mapping)], Instant::now());
        let [idle, busy] = [daemon.user(&mapping), daemon.user(&mapping)];
        join(&agent, &idle);
        join(&other_agent, &busy);
        while start.elapsed() < SECOND * 2 {
            for (from, to) in [(&busy, &other_agent), (&other_agent, &busy)] {
                from.send(b"more");
                to.expect(b"more");
                std::thread::sleep(SECOND / 4);
            }
        }
        assert!(matches!(idle.hear(PATIENCE), Heard::Ended(_)));
        agent.expect_end();
        busy.send(b"still there");
        other_agent.expect(b"still there");
    });
}

#[test]
fn a_session_is_not_idle_for_what_its_agent_was_before() {
    in_both_modes(|daemon| {
        // Agents of both versions, and of a private pipe, are free for longer than a session may be idle.
        let told = add(daemon, 1, json!({"idletimeout": 1, "proxyprotocol": "v1"}));
        let framed = add(daemon, 1, json!({"idletimeout": 1}));
        let mut private = private_mapping(1, 0);
        private["idletimeout"] = json!(1);
        let private = daemon.add(&private);
        let (agent, left, lines) = (daemon.agent(&told), daemon.agent(&private), daemon.framed_agent(&framed));
        assert_eq!(agent.hear(SECOND * 3 / 2), Heard::Silence);
        let start = Instant::now();
        let (_right, users) = (daemon.agent_on(&private, 1), [daemon.user(&told), daemon.user(&framed)]);
        for peer in [&users[0], &users[1], &left] {
            peer.expect_end();
            assert!(start.elapsed() >= SECOND, "{:?}", start.elapsed());
        }
        drop((agent, lines));
    });
}

#[test]
fn one_address_has_so_many_sessions_and_no_more() {
    in_both_modes(|daemon| {
        let mapping = add(daemon, 4, json!({"maxusers": 1}));
        let (_agent, user) = daemon.pair(&mapping);
        let free = daemon.agent(&mapping);
        let second = daemon.user(&mapping);
        second.send(b"me too");
        assert!(matches!(second.hear(PATIENCE), Heard::Ended(_)));
        let (of, why) =
            (format!("port {}: user 127.0.0.1:", mapping.ports[1]), "refused, its address has 1 session already");
        let tells = |line: &str| line.contains(&of) && line.contains(why);
        wait_until("the log tells of it", PATIENCE, || daemon.log().lines().any(tells));
        let other = daemon.dial(mapping.ports[1]).from([127, 0, 0, 2]).connect().expect("a connection");
        join(&free, &other);
        user.reset();
        let agent = daemon.agent(&mapping);
        wait_until("its place is free", PATIENCE, || daemon.controller().status(&mapping.id)["users"] == 1);
        join(&agent, &daemon.user(&mapping));
    });
}

#[test]
fn half_closed_sessions_count_and_the_one_without_an_answer_makes_room() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = add(&daemon, 4, json!({"maxusers": 2}));
    let agents: Vec<_> = (0..4).map(|_| daemon.agent(&mapping)).collect();
    let users: Vec<_> = (0..4u8)
        .map(|number| {
            let user = daemon.user(&mapping);
            user.send(&[number]);
            user.finish();
            agents[usize::from(number)].expect(&[number]);
            user
        })
        .collect();
    for gone in &users[..2] {
        assert!(matches!(gone.hear(PATIENCE), Heard::Ended(_)));
    }
    wait_until("two are left", PATIENCE, || daemon.controller().status(&mapping.id)["users"] == 2);
    for number in [2, 3] {
        agents[number].send(b"answer");
        users[number].expect(b"answer");
    }
}

#[test]
fn a_user_waits_as_long_as_its_mapping_says() {
    in_both_modes(|daemon| {
        let [none, short] = [0, 2].map(|seconds| add(daemon, 1, json!({"waittime": seconds})));
        for (mapping, least, most) in [(&none, Duration::ZERO, SECOND), (&short, SECOND * 2, SECOND * 4)] {
            let (user, start) = (daemon.user(mapping), Instant::now());
            user.send(b"anybody there?");
            assert!(matches!(user.hear(PATIENCE), Heard::Ended(_)));
            assert!((least..most).contains(&start.elapsed()), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn options_survive_a_restart() {
    let mut daemon = Setup::new(Mode::Tls).start();
    let mapping =
        add(&daemon, 2, json!({"users": "plain", "proxyprotocol": "v1", "name": "web", "allow": ["127.0.0.1"]}));
    daemon.kill();
    daemon.start();
    let (agent, user) = (daemon.agent(&mapping), plain_user(&daemon, &mapping));
    agent.expect(&header_v1(&mapping, &user));
}

fn with(options: Value) -> String {
    let mut mapping = public_mapping(2, 0);
    mapping.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
    form("mapping", &mapping.to_string())
}

/// What is refused, and with which words.
#[track_caller]
fn expect_refusal(daemon: &Daemon, options: Value, status: u16, words: &str) {
    let answer = daemon.controller().post("/api/v2/mapping/add", &with(options));
    let told = answer.json()["errormessage"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == status && told.contains(words), "{answer:?}");
}

#[test]
fn names_and_fixed_ports_are_kept_over_a_restart() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let last = daemon.ports.mappings().1;
    let mapping = add(&daemon, 2, json!({"name": "web.1", "port1": last, "port2": last - 1}));
    assert_eq!(mapping.ports, [last, last - 1]);
    daemon.kill();
    daemon.start();
    expect_refusal(&daemon, json!({"name": "web.1"}), 409, &mapping.id);
    expect_refusal(&daemon, json!({"port2": last}), 409, &mapping.id);
    expect_refusal(&daemon, json!({"port2": daemon.ports.api()}), 400, "port2");
    assert_eq!(daemon.controller().status("web.1")["id"], mapping.id.as_str());
    // Its sessions are no reason not to have the ports again.
    let (agent, user) = daemon.pair(&mapping);
    let removed = daemon.controller().post("/api/v2/mapping/remove", "mappingid=web.1");
    assert_eq!((removed.status, &removed.json()["id"]), (200, &mapping.id.as_str().into()));
    drop((agent, user));
    let again = add(&daemon, 2, json!({"name": "web.1", "port1": last, "port2": last - 1}));
    assert_eq!(again.ports, mapping.ports);
    daemon.pair(&again);
}

#[test]
fn a_fixed_port_of_another_program_is_refused() {
    let daemon = Setup::new(Mode::Plain).start();
    let last = daemon.ports.mappings().1;
    let other = TcpListener::bind(("127.0.0.1", last)).expect("a free port");
    expect_refusal(&daemon, json!({"port1": last}), 409, &format!("port {last} could not be opened"));
    drop(other);
    assert_eq!(add(&daemon, 1, json!({"port1": last})).ports[0], last);
}

#[test]
fn in_dev_mode_users_with_tls_are_refused_and_stored_ones_do_not_stop_the_start() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    let (first, _) = daemon.ports.mappings();
    let stored = json!({"mappings": [{
        "id": "5f3c7d9e-0000-4000-8000-000000000001", "port1": first, "port2": first + 1, "maxconnectionsport1": 1,
        "maxconnectionsport2": 1, "passcodeport1": "secret", "passcodeport2": "",
        "heartbeatabsencethresholdport1": 0, "heartbeatabsencethresholdport2": 0, "users": "tls",
    }]});
    fs::write(daemon.path("configs.json"), stored.to_string()).expect("a file");
    daemon.start();
    let told = "mapping 5f3c7d9e-0000-4000-8000-000000000001: its key \"users\" has no effect";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    expect_refusal(&daemon, json!({"users": "tls"}), 400, "dev mode");
    let mapping = add(&daemon, 1, json!({"users": "plain"}));
    daemon.pair(&mapping);
}

#[test]
fn metrics_tell_what_a_mapping_is_called() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = add(&daemon, 1, json!({"name": "web"}));
    let answer = daemon.controller().scrape();
    let (id, [port1, port2]) = (&mapping.id, mapping.ports);
    let line = format!(
        r#"iofog_connector_mapping_info{{id="{id}",name="web",type="public",port1="{port1}",port2="{port2}"}} 1"#
    );
    assert!(answer.body.lines().any(|it| it == line), "{answer:?}");
}

#[test]
fn agents_of_a_private_mapping_are_closed_too_when_nothing_moves() {
    in_both_modes(|daemon| {
        let mut wanted = private_mapping(2, 0);
        wanted["idletimeout"] = json!(1);
        let mapping = daemon.add(&wanted);
        let [one, two] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
        join(&one, &two);
        assert!(matches!(one.hear(PATIENCE), Heard::Ended(_)));
        assert!(matches!(two.hear(PATIENCE), Heard::Ended(_)));
        for key in ["users", "proxyprotocol", "allow", "maxusers", "waittime"] {
            let value = match key {
                "users" => json!("plain"),
                "proxyprotocol" => json!("v1"),
                "allow" => json!([]),
                _ => json!(1),
            };
            let mut wanted = private_mapping(1, 0);
            wanted[key] = value;
            let answer = daemon.controller().post("/api/v2/mapping/add", &form("mapping", &wanted.to_string()));
            assert!(answer.status == 400 && answer.body.contains("private"), "{key}: {answer:?}");
        }
    });
}
