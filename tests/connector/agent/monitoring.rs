//! What an agent tells of itself over HTTP (`metricslisten`), and its access log.

use super::listening_port;
use crate::harness::{
    AgentProgram, Controller, Daemon, Dial, Listed, Metrics, Mode, PATIENCE, Service, Setup, in_both_versions,
    in_both_versions_plain, request, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An agent with the service `one`, and these keys beside the list.
fn agent(daemon: &Daemon, service: &Value, keys: &Value) -> AgentProgram {
    let agent = AgentProgram::of_services(daemon, &[]);
    let mut settings =
        json!({"connector": "127.0.0.1", "ca": "ca.pem", "dev": daemon.mode == Mode::Plain, "services": [service]});
    settings.as_object_mut().expect("keys").extend(keys.as_object().expect("keys").clone());
    agent.configure(&settings.to_string());
    agent
}

fn service(daemon: &Daemon, to: &Service) -> (Value, crate::harness::Mapping) {
    let mapping = daemon.add_public(2);
    let listed = json!({"name": "one", "port": mapping.ports[0], "passcode": mapping.passcodes[0],
        "to": format!("127.0.0.1:{}", to.port), "connections": 2});
    (listed, mapping)
}

fn get(port: u16, method: &str, path: &str) -> (u16, String) {
    let caller = Controller { dial: Dial::new(port, None) };
    let answer = caller.connect().expect("a connection").exchange(&request(method, path, &[], ""));
    (answer.status, answer.body)
}

#[test]
fn metrics_and_health_are_told_to_who_connects() {
    in_both_versions(|daemon, version| {
        let echo = Service::echo();
        let (listed, mapping) = service(daemon, &echo);
        let port = listening_port(daemon);
        let agent = agent(daemon, &listed, &json!({"metricslisten": format!("127.0.0.1:{port}")}));
        let agent = agent.speaking(version).start();
        let user = daemon.user(&mapping);
        user.send(b"hello");
        user.expect(b"hello");
        wait_until("both connections are there", PATIENCE, || {
            get(port, "GET", "/metrics").1.contains("iofog_connector_agent_connections{service=\"one\"} 2\n")
        });
        let (status, text) = get(port, "GET", "/metrics");
        assert_eq!(status, 200);
        for line in [
            "iofog_connector_agent_services 1",
            "iofog_connector_agent_sessions{service=\"one\"} 1",
            "iofog_connector_agent_sessions_total{service=\"one\"} 1",
            "iofog_connector_agent_received_bytes_total{service=\"one\"} 5",
            "iofog_connector_agent_sent_bytes_total{service=\"one\"} 5",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
        }
        Metrics::parse(&text);
        // One that says nothing holds the next one up for a moment only.
        let _mute = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("a connection");
        let (status, text) = get(port, "GET", "/healthz");
        assert!(status == 200 && text.contains("\"status\":\"ok\""), "{status} {text}");
        assert_eq!(get(port, "POST", "/metrics").0, 405);
        assert_eq!(get(port, "GET", "/status").0, 404);
        drop(agent);
    });
}

#[test]
fn an_access_log_over_another_file_of_the_agents_is_refused() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (mut listed, mapping) = service(daemon, &Service::echo());
    let keys = listed.as_object_mut().expect("keys");
    keys.remove("passcode");
    keys.insert("passcodefile".to_owned(), json!("web.passcode"));
    for file in ["./agent.json", "ca.pem", "web.passcode"] {
        let agent = agent(daemon, &listed, &json!({"accesslog": file}));
        fs::write(agent.path("web.passcode"), &mapping.passcodes[0]).expect("a file");
        let (said, status) = agent.check();
        let words = format!("/{file}: accesslog: the agent needs it for something else");
        assert!(status == Some(78) && said.contains(&words), "{said}");
        assert_eq!(fs::read_to_string(agent.path("web.passcode")).expect("a file"), mapping.passcodes[0]);
    }
    let mut agent = AgentProgram::new(daemon, &mapping, 0).exposing(1, 1);
    let passcode = agent.path("passcode").display().to_string();
    agent = agent.with(&["--access-log", &passcode]).spawn();
    assert_eq!(agent.wait().code(), Some(78));
}

#[test]
fn a_log_file_over_another_file_of_the_agents_is_refused_before_anything_is_written() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (mut listed, mapping) = service(daemon, &Service::echo());
    let keys = listed.as_object_mut().expect("keys");
    keys.remove("passcode");
    keys.insert("passcodefile".to_owned(), json!("web.passcode"));
    for name in ["agent.json", "web.passcode"] {
        let agent = agent(daemon, &listed, &json!({}));
        fs::write(agent.path("web.passcode"), &mapping.passcodes[0]).expect("a file");
        let file = agent.path(name);
        let before = fs::read(&file).expect("a file");
        let mut agent = agent.with(&["--log-file", &file.display().to_string()]).spawn();
        assert_eq!(agent.wait().code(), Some(64), "{name}: {}", agent.log());
        let words = format!("--log-file: the agent needs {} for something else", file.display());
        assert!(agent.log().contains(&words), "{}", agent.log());
        assert_eq!(fs::read(&file).expect("a file"), before, "{name}");
    }
}

/// It may be the agent itself that listens there: a warning.
#[test]
fn check_warns_of_addresses_that_are_taken() {
    let daemon = &Setup::new(Mode::Plain).start();
    let mapping = daemon.add_private(1);
    let [tunnel, metrics] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [tunnel, metrics] = [&tunnel, &metrics].map(|it| it.local_addr().expect("an address").to_string());
    let listed = json!({"name": "in", "mode": "private", "port": mapping.ports[0], "passcode": mapping.passcodes[0],
        "listen": tunnel});
    let (said, status) = agent(daemon, &listed, &json!({"metricslisten": metrics})).check();
    assert_eq!(status, Some(0), "{said}");
    for words in [format!("key \"listen\": {tunnel} cannot be listened on"), format!("metricslisten: {metrics} cannot")]
    {
        assert!(said.contains(&words), "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key() {
    let daemon = &Setup::new(Mode::Plain).start();
    let taken = TcpListener::bind(("127.0.0.1", listening_port(daemon))).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (listed, _) = service(daemon, &Service::echo());
    let mut agent = agent(daemon, &listed, &json!({})).with(&["--metrics-listen", &address]);
    agent.respawn();
    assert_eq!(agent.wait().code(), Some(69));
    assert!(agent.log().contains(&format!("metricslisten: {address} cannot be listened on")), "{}", agent.log());
}

#[test]
fn each_session_is_a_line_of_the_access_log_and_they_add_up() {
    in_both_versions(|daemon, version| {
        let echo = Service::echo();
        let (listed, mapping) = service(daemon, &echo);
        let agent = agent(daemon, &listed, &json!({"accesslog": "access.log"})).with_socket();
        let agent = agent.speaking(version).start();
        for size in [1_usize, 100_000] {
            let user = daemon.user(&mapping);
            user.send(&vec![b'x'; size]);
            user.expect(&vec![b'x'; size]);
            user.finish();
            user.expect_clean_end();
        }
        let file = agent.path("access.log");
        let text = || fs::read_to_string(&file).unwrap_or_default();
        wait_until("both are written", PATIENCE, || text().lines().count() == 2);
        let field = |line: &str, key: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(&format!("{key}=")));
            found.unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
        };
        let text = text();
        let sum = |key| text.lines().map(|line| field(line, key).parse::<u64>().expect("a number")).sum::<u64>();
        assert_eq!((sum("received"), sum("sent")), (100_001, 100_001), "{text}");
        for line in text.lines() {
            assert_eq!(field(line, "service"), "one");
            assert_eq!(field(line, "connector"), format!("127.0.0.1:{}", mapping.ports[0]));
            assert_eq!(field(line, "local"), format!("127.0.0.1:{}", echo.port));
            assert_eq!(field(line, "tls"), if daemon.mode == Mode::Tls { "TLSv1.3" } else { "-" });
            assert!(["connector", "local"].contains(&field(line, "ended").as_str()), "{line}");
            assert!(field(line, "duration").parse::<f64>().is_ok(), "{line}");
        }
        let (told, _) = agent.status(&["--json"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let told = &told["services"][0];
        assert_eq!((&told["totalsessions"], &told["received"]), (&json!(2), &json!(100_001)));
    });
}

#[test]
fn the_access_log_is_rotated_and_has_what_was_left_at_the_end() {
    in_both_versions_plain(|daemon, version| {
        let echo = Service::echo();
        let (listed, mapping) = service(daemon, &echo);
        let mut agent = agent(daemon, &listed, &json!({"accesslog": "access.log"}));
        agent = agent.speaking(version).with(&["--log-format", "json"]).start();
        let user = daemon.user(&mapping);
        user.send(b"x");
        user.expect(b"x");
        fs::rename(agent.path("access.log"), agent.path("access.log.1")).expect("a log");
        agent.signal(libc::SIGUSR1);
        wait_until("there is a new file", PATIENCE, || agent.path("access.log").exists());
        assert!(agent.terminate().success());
        let line: Value =
            serde_json::from_str(&fs::read_to_string(agent.path("access.log")).expect("a log")).expect("an object");
        assert_eq!((&line["service"], &line["received"]), (&json!("one"), &json!(1)));
        assert!(line["ended"].is_string() && line["duration"].is_f64(), "{line}");
        assert!(agent.log().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", agent.log());
    });
}

#[test]
fn a_tunnels_client_is_told_with_its_address_and_a_reload_says_what_needs_a_restart() {
    let daemon = &Setup::new(Mode::Plain).start();
    let mapping = daemon.add_private(1);
    let port = listening_port(daemon);
    let echo = Service::echo();
    let exposing = AgentProgram::new(daemon, &mapping, 0).exposing(echo.port, 1).start();
    let listening = Listed { name: "in", mapping: &mapping, side: 1, local: ("listen", port), connections: 1 };
    let agent = AgentProgram::of_services(daemon, &[listening]);
    let log = agent.path("access.log");
    let agent = agent.with(&["--access-log", &log.display().to_string()]).start();
    let client = Dial::new(port, None).connect().expect("a connection");
    client.send(b"through the tunnel");
    client.expect(b"through the tunnel");
    let address = client.local();
    client.finish();
    let text = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("it is written", PATIENCE, || text().contains(&format!(" client={address} received=18 sent=18 ")));
    agent.reload("1 unchanged");
    assert!(!agent.log().contains("needs a restart"), "{}", agent.log());
    let (mut other, _) = service(daemon, &echo);
    other["name"] = json!("out");
    let settings = json!({"connector": "127.0.0.1", "dev": true, "metricslisten": "127.0.0.1:1", "services": [other]});
    agent.configure(&settings.to_string());
    agent.reload("services: 1 added, 1 removed");
    assert!(agent.log().contains("[WARN] metricslisten needs a restart; the old value applies"), "{}", agent.log());
    drop(exposing);
}
