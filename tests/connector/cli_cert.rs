//! cert: a certificate and key that the daemon, agents and users can work with.

use crate::harness::{Mode, Setup};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const EX_USAGE: i32 = 64;
const EX_CANTCREAT: i32 = 73;

#[test]
fn what_it_makes_is_good_for_a_daemon_and_never_overwritten() {
    let mut daemon = Setup::new(Mode::Tls).prepare();
    let files = ["server-cert.pem", "server-key.pem"].map(|name| daemon.path(name));
    files.iter().for_each(|file| fs::remove_file(file).expect("it was written"));
    let words =
        ["cert", "--name", "relay.example.org", "--name", "localhost", "--address", "192.0.2.1", "--address", "::1"];
    let said = daemon.command(&words);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    let modes = files.each_ref().map(|file| fs::metadata(file).expect("it was made").permissions().mode() & 0o777);
    assert_eq!(modes, [0o644, 0o600]);

    daemon.spawn();
    crate::harness::wait_until("it runs", crate::harness::PATIENCE, || daemon.command(&["status"]).status == 0);
    let before = files.each_ref().map(|file| fs::read(file).expect("it was made"));
    let said = daemon.command(&words);
    assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
    assert!(said.err.contains("server-cert.pem"), "{said:?}");
    assert_eq!(files.each_ref().map(|file| fs::read(file).expect("it is there")), before);
}

#[test]
fn one_file_that_is_there_is_enough_to_make_none() {
    for name in ["server-key.pem", "server-cert.per", "server-key.per"] {
        let daemon = Setup::new(Mode::Plain).prepare();
        fs::write(daemon.path(name), "mine").expect("a file");
        let said = daemon.command(&["cert", "--name", "relay.example.org"]);
        assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
        assert!(said.err.contains(name), "{said:?}");
        assert_eq!(fs::read_to_string(daemon.path(name)).expect("it is there"), "mine");
        assert!(!daemon.path("server-cert.pem").exists());
    }
}

#[test]
fn without_a_name_there_is_nothing_to_certify() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let said = daemon.command(&["cert"]);
    assert_eq!(said.status, EX_USAGE, "{said:?}");
    assert!(said.err.contains("--name"), "{said:?}");
    assert_eq!(daemon.command(&["cert", "--address", "relay.example.org"]).status, EX_USAGE);
    assert_eq!(daemon.command(&["cert", "--name", "naïve"]).status, EX_USAGE);
    assert!(!daemon.path("server-key.pem").exists());
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    let said = crate::harness::command(&["cert", "--config", "/nonexistent/connector.conf", "--name", "x"]);
    assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
    assert!(said.err.contains("/nonexistent/server-key.pem"), "{said:?}");
}
