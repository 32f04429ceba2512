//! check: 0 or 78, every fault named, nothing changed.

use crate::harness::{Daemon, Mode, Setup};
use std::fs;
use std::net::TcpListener;

const EX_CONFIG: i32 = 78;

/// Expects a fault that is told with each of `words`.
#[track_caller]
fn faulty(daemon: &Daemon, words: &[&str]) {
    let said = daemon.command(&["check"]);
    assert_eq!(said.status, EX_CONFIG, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{said:?} does not name {word}");
    }
}

#[test]
fn good_files_are_good_and_nothing_is_changed() {
    for mode in [Mode::Plain, Mode::Tls] {
        let daemon = Setup::new(mode).prepare();
        // What a crash left; only the daemon may clean it up.
        fs::write(daemon.path("configs.json.new"), "").expect("a file");
        let said = daemon.command(&["check"]);
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.out.contains("connector.conf: good"), "{said:?}");
        assert_eq!(said.out.contains("server-cert.pem: good"), mode == Mode::Tls, "{said:?}");
        assert!(daemon.path("configs.json.new").exists());
        assert!(!daemon.path("configs.json").exists() && !daemon.path("connector.conf.pid").exists());
    }
}

#[test]
fn each_fault_is_named() {
    let daemon = Setup::new(Mode::Tls).set("apitoken", "token").set("controllerca", "ca.pem").prepare();
    fs::write(daemon.path("configs.json"), "{\"mappings\":\n[1]}").expect("a file");
    fs::remove_file(daemon.path("server-key.pem")).expect("it was written");
    faulty(&daemon, &["server-key.pem", "apitoken", "controllerca", "configs.json", "line 2"]);
    fs::write(daemon.path("connector.conf"), "{\"prots\": []}").expect("a file");
    faulty(&daemon, &["connector.conf, line 1", "prots"]);
}

#[test]
fn ports_that_are_taken_are_named_unless_the_daemon_has_them() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    assert_eq!(daemon.command(&["check"]).status, 0);
    daemon.terminate();
    assert_eq!(daemon.command(&["check"]).status, 0);
    let taken = TcpListener::bind(("127.0.0.1", mapping.ports[1])).expect("a port");
    faulty(&daemon, &[&format!("port {} of the mapping {}", mapping.ports[1], mapping.id)]);
    drop(taken);
    let _taken = TcpListener::bind(("127.0.0.1", daemon.ports.api())).expect("a port");
    faulty(&daemon, &[&format!("port {} of the API", daemon.ports.api())]);
}

#[test]
fn a_log_that_cannot_be_written_is_named_and_not_made() {
    let daemon = Setup::new(Mode::Plain).set("logfile", "no-such-folder/log").prepare();
    faulty(&daemon, &["logfile", "no-such-folder/log"]);
    let daemon = Setup::new(Mode::Plain).set("logfile", "log").prepare();
    assert_eq!(daemon.command(&["check"]).status, 0);
    assert!(!daemon.path("log").exists());
}

#[test]
fn a_key_with_a_password_is_named_as_such_however_it_is_written() {
    let daemon = Setup::new(Mode::Tls).prepare();
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for key in [old, new] {
        fs::write(daemon.path("server-key.pem"), key).expect("a file");
        faulty(&daemon, &["server-key.pem", "a private key without a password"]);
    }
}

#[test]
fn an_address_of_another_machine_is_named() {
    let daemon = Setup::new(Mode::Plain).set("listen", "192.0.2.1").prepare();
    faulty(&daemon, &["`listen` is no address of this machine"]);
}
