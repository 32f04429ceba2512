//! SIGHUP: what is good is taken over, what is not leaves all as it was, and sessions go on.

use crate::harness::{Certificate, Controller, Daemon, Mode, PATIENCE, Setup, post, request, wait_until};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode as Permissions;
use nix::unistd::mkfifo;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::fs;

/// Sends the signal and waits until the log has this, which it did not have before.
#[track_caller]
fn reload(daemon: &Daemon, expected: &str) {
    let before = daemon.log().len();
    daemon.signal(libc::SIGHUP);
    wait_until(&format!("the log has {expected:?}"), PATIENCE, || daemon.log()[before..].contains(expected));
}

fn write_settings(daemon: &Daemon, change: impl Fn(&mut Value)) {
    let file = daemon.path("connector.conf");
    let mut settings = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
    change(&mut settings);
    fs::write(file, settings.to_string()).expect("a file");
}

fn certificate() -> Certificate {
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(["renewed.example".to_owned()]).expect("a name");
    Certificate { chain: parameters.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

#[test]
fn a_renewed_certificate_is_for_new_connections_and_old_ones_go_on() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let (agent, user) = daemon.pair(&mapping);
    let renewed = certificate();
    fs::write(daemon.path("server-cert.pem"), &renewed.chain).expect("a file");
    fs::write(daemon.path("server-key.pem"), &renewed.key).expect("a file");
    assert_eq!(daemon.command(&["status"]).status, 1, "the old certificate is still in use");
    reload(&daemon, "Reloaded");
    wait_until("the new one is in use", PATIENCE, || daemon.command(&["status"]).status == 0);
    user.send(b"still there?");
    agent.expect(b"still there?");
    agent.send(b"still here");
    user.expect(b"still here");
}

#[test]
fn what_is_invalid_is_refused_and_the_old_stays() {
    let daemon = Setup::new(Mode::Tls).start();
    fs::write(daemon.path("server-key.pem"), certificate().key).expect("a file");
    write_settings(&daemon, |settings| settings["ports"] = json!(["1-2"]));
    reload(&daemon, "Reload failed, nothing changed");
    assert!(daemon.log().contains("server-key.pem: this key does not belong"), "{}", daemon.log());
    assert_eq!(daemon.command(&["status"]).status, 0);
    let mapping = daemon.add_public(1);
    assert!(mapping.ports[0] > 2);
    fs::write(daemon.path("connector.conf"), "{\"ports\": 5}").expect("a file");
    reload(&daemon, "connector.conf, line 1");
    daemon.add_public(1);
}

#[test]
fn changed_ports_are_for_new_mappings() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let (first, last) = daemon.ports.mappings();
    write_settings(&daemon, |settings| settings["ports"] = json!([format!("{}-{last}", last - 1)]));
    reload(&daemon, "Reloaded");
    wait_until("only two are left", PATIENCE, || daemon.controller().status("all")["availablePorts"] == 2);
    assert!(mapping.ports[0] < first + 4);
    daemon.pair(&mapping);
    assert_eq!(daemon.add_public(1).ports, [last - 1, last]);
}

#[test]
fn a_token_comes_and_changes_without_a_restart() {
    let daemon = Setup::new(Mode::Plain).start();
    fs::write(daemon.path("token"), "first").expect("a file");
    let status = || daemon.controller().post("/api/v2/status", "mappingid=all").status;
    assert_eq!(status(), 200);
    write_settings(&daemon, |settings| settings["apitoken"] = json!("token"));
    reload(&daemon, "Reloaded");
    assert_eq!(status(), 401, "what the log calls reloaded is in force");
    assert_eq!(daemon.command(&["status"]).err, "");
    fs::write(daemon.path("token"), "").expect("a file");
    reload(&daemon, "apitoken");
    assert_eq!(status(), 401);
}

#[test]
fn controllers_change_without_a_restart() {
    let daemon = Setup::new(Mode::Plain).start();
    let status = |from| {
        let dial = daemon.dial(daemon.ports.api()).from(from);
        Controller { dial }.post("/api/v2/status", "mappingid=all").status
    };
    let (here, there) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let mut kept = daemon.controller().connect().expect("a connection");
    let request = post("/api/v2/status", "mappingid=all");
    assert_eq!((status(here), status(there), kept.exchange(&request).status), (200, 200, 200));
    write_settings(&daemon, |settings| settings["controllers"] = json!(["127.0.0.2"]));
    reload(&daemon, "Reloaded");
    // Connections that exist are told at their next request.
    assert_eq!((status(here), status(there), kept.exchange(&request).status), (403, 200, 403));
    write_settings(&daemon, |settings| drop(settings.as_object_mut().expect("an object").remove("controllers")));
    reload(&daemon, "Reloaded");
    assert_eq!((status(here), status(there)), (200, 200));
}

#[test]
fn what_only_a_restart_changes_is_said_every_time() {
    let daemon = Setup::new(Mode::Plain).start();
    write_settings(&daemon, |settings| settings["buffers"] = json!(7));
    for _ in 0..2 {
        reload(&daemon, "buffers needs a restart; the old value applies");
    }
    write_settings(&daemon, |settings| settings["dev"] = json!(false));
    reload(&daemon, "server-cert.pem: no such file");
    assert_eq!(daemon.controller().post("/api/v2/status", "mappingid=all").status, 200);
}

#[test]
fn the_token_that_was_checked_is_the_one_that_counts() {
    let daemon = Setup::new(Mode::Plain).start();
    let file = daemon.path("token");
    fs::write(&file, "the one").expect("a file");
    write_settings(&daemon, |settings| settings["apitoken"] = json!("token"));
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
    watch.add_watch(&file, AddWatchFlags::IN_OPEN).expect("a watch");
    reload(&daemon, "Reloaded");
    let status = |token: &str| {
        let headers = ["Content-Type: application/x-www-form-urlencoded", &format!("Authorization: Bearer {token}")];
        let mut connection = daemon.controller().connect().expect("a connection");
        connection.exchange(&request("POST", "/api/v2/status", &headers, "mappingid=all")).status
    };
    assert_eq!((status("the one"), status("another")), (200, 401));
    // Read a second time, it could be another one by then.
    assert_eq!(watch.read_events().expect("events").len(), 1);
}

#[test]
fn a_pipe_in_the_place_of_the_token_is_refused_and_holds_up_nothing() {
    let mut daemon = Setup::new(Mode::Plain).start();
    mkfifo(&daemon.path("token"), Permissions::S_IRWXU).expect("a pipe");
    write_settings(&daemon, |settings| settings["apitoken"] = json!("token"));
    reload(&daemon, "Reload failed, nothing changed");
    assert!(daemon.log().contains("a regular file was expected"), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

#[test]
fn one_bad_file_leaves_all_the_others_as_they_were() {
    let daemon = Setup::new(Mode::Tls).start();
    let status = || daemon.controller().post("/api/v2/status", "mappingid=all");
    let before = status().json()["availablePorts"].clone();
    for (name, text, complaint) in [
        ("token", "", "apitoken"),
        ("authority.pem", "nothing", "authority.pem"),
        ("server-key.pem", "nothing", "server-key.pem"),
    ] {
        let kept = fs::read(daemon.path("server-key.pem")).expect("a key");
        fs::write(daemon.path("token"), "a token").expect("a file");
        fs::write(daemon.path("authority.pem"), certificate().chain).expect("a file");
        fs::write(daemon.path(name), text).expect("a file");
        let (_, last) = daemon.ports.mappings();
        write_settings(&daemon, |settings| {
            settings["apitoken"] = json!("token");
            settings["controllerca"] = json!("authority.pem");
            settings["controllers"] = json!([]);
            settings["ports"] = json!([format!("{}-{last}", last - 1)]);
        });
        reload(&daemon, "Reload failed, nothing changed");
        assert!(daemon.log().contains(complaint), "{}", daemon.log());
        let answer = status();
        assert_eq!((answer.status, &answer.json()["availablePorts"]), (200, &before), "{complaint}");
        fs::write(daemon.path("server-key.pem"), kept).expect("a file");
    }
}
