//! `/healthz`, and the port of `metricslisten`: what is told without a right.

use crate::harness::{Answer, Controller, Daemon, Dial, Mode, Setup, for_both_modes, post, request};
use serde_json::json;
use std::net::TcpListener;

fn get(caller: &Controller, path: &str) -> Answer {
    caller.connect().expect("a connection").exchange(&request("GET", path, &[], ""))
}

/// A daemon with such a port, and whoever calls there.
fn with_monitoring(setup: Setup) -> (Daemon, Controller) {
    let port = setup.last_port();
    let daemon = setup.set("metricslisten", format!("127.0.0.1:{port}")).start();
    (daemon, Controller { dial: Dial::new(port, None) })
}

#[test]
fn health_is_told_to_everybody() {
    for_both_modes(|mode| {
        let setup = Setup::new(mode).set("controllers", json!([])).set("apitoken", "token");
        let mut daemon = setup.prepare();
        std::fs::write(daemon.path("token"), "secret").expect("a file");
        daemon.spawn();
        let healthy = || {
            daemon.controller().connect().is_ok_and(|mut connection| {
                connection.send(&request("GET", "/healthz", &[], "")).is_ok()
                    && connection.answer_within(crate::harness::PATIENCE).is_ok_and(|answer| answer.status == 200)
            })
        };
        crate::harness::wait_until("the daemon is healthy", crate::harness::PATIENCE, healthy);
        assert_eq!(get(&daemon.controller(), "/healthz").json()["status"], "ok");
        assert!(!daemon.log().contains("refused"), "{}", daemon.log());
        assert_eq!(get(&daemon.controller(), "/metrics").status, 403);
        let told = || daemon.log().contains("is not in `controllers`");
        crate::harness::wait_until("the log tells of it", crate::harness::PATIENCE, told);
    });
}

#[test]
fn a_token_keeps_everything_but_health_from_those_without() {
    let daemon = Setup::new(Mode::Plain).set("apitoken", "connector.conf.token").prepare();
    std::fs::write(daemon.path("connector.conf.token"), "secret").expect("a file");
    let mut daemon = daemon;
    daemon.spawn();
    crate::harness::wait_until("it answers", crate::harness::PATIENCE, || daemon.controller().connect().is_ok());
    assert_eq!(get(&daemon.controller(), "/healthz").status, 200);
    for path in ["/metrics", "/status"] {
        assert_eq!(get(&daemon.controller(), path).status, 401, "{path}");
    }
}

#[test]
fn at_its_port_whoever_monitors_may_read_and_nothing_else() {
    for_both_modes(|mode| {
        let (daemon, monitor) = with_monitoring(Setup::new(mode).set("controllers", json!(["127.0.0.1"])));
        assert!(get(&monitor, "/metrics").body.contains("iofog_connector_mappings 0\n"));
        assert_eq!(get(&monitor, "/status").json()["status"], "running");
        assert_eq!(get(&monitor, "/healthz").status, 200);
        assert_eq!(monitor.post("/api/v2/status", "mappingid=all").json()["id"], "all");
        for path in ["/api/v2/mapping/add", "/api/v2/mapping/list", "/api/v2/commandline", "/nowhere"] {
            let answer = monitor.post(path, "command=stop");
            assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        }
        assert_eq!(get(&daemon.controller(), "/status").json()["status"], "running");
    });
}

#[test]
fn a_crowd_at_that_port_keeps_no_controller_and_no_other_out() {
    let (daemon, monitor) = with_monitoring(Setup::new(Mode::Plain));
    let crowd: Vec<_> = (0..50).map(|_| monitor.connect().expect("a connection")).collect();
    assert_eq!(get(&monitor, "/healthz").status, 200);
    assert_eq!(daemon.controller().post("/api/v2/status", "mappingid=all").status, 200);
    let page = request("GET", "/metrics", &["Origin: http://a.example"], "");
    assert_eq!(monitor.connect().expect("a connection").exchange(&page).status, 403);
    drop(crowd);
}

#[test]
fn a_port_that_is_taken_keeps_nothing_else_from_working() {
    let setup = Setup::new(Mode::Plain);
    let port = setup.last_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    let daemon = setup.set("metricslisten", format!("127.0.0.1:{port}")).start();
    assert!(daemon.log().contains("`metricslisten` in the settings) could not be bound"), "{}", daemon.log());
    drop(taken);
    let monitor = Controller { dial: Dial::new(port, None) };
    let healthy = || monitor.try_post("/api/v2/status", "mappingid=all").is_ok();
    crate::harness::wait_until("the port is bound", crate::harness::PATIENCE, healthy);
}

#[test]
fn requests_without_a_right_leave_the_connection_open_at_that_port() {
    let (_daemon, monitor) = with_monitoring(Setup::new(Mode::Tls));
    let mut connection = monitor.connect().expect("a connection");
    assert_eq!(connection.exchange(&post("/api/v2/mapping/list", "")).status, 403);
    assert_eq!(connection.exchange(&request("GET", "/healthz", &[], "")).status, 200);
}
