//! cert: a certificate and key that the daemon, agents and users can work with.

use crate::harness::{Mode, Setup};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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

#[test]
fn what_is_no_host_name_is_refused_and_nothing_is_made() {
    let daemon = Setup::new(Mode::Plain).prepare();
    for (name, expected) in [
        ("", "expected a host name, like relay.example.org"),
        ("two words", "expected a host name"),
        ("a..b", "expected a host name"),
        ("-a", "expected a host name"),
        ("https://relay.example.org/", "without https:// and path"),
        ("relay.example.org:443", "without a port"),
        ("[::1]:443", "without a port"),
    ] {
        let said = daemon.command(&["cert", "--name", "good", &format!("--name={name}")]);
        assert_eq!(said.status, EX_USAGE, "{name}: {said:?}");
        assert!(said.err.contains(&format!("--name: found {name:?}")) && said.err.contains(expected), "{said:?}");
    }
    for days in ["0", "-1", "65536", "ten", ""] {
        let said = daemon.command(&["cert", "--name", "good", &format!("--days={days}")]);
        assert_eq!(said.status, EX_USAGE, "{days}: {said:?}");
        assert!(said.err.contains("--days: found") && said.err.contains("a whole number, 1 to 65535"), "{said:?}");
    }
    assert!(!daemon.path("server-key.pem").exists());
}

#[test]
fn it_says_whom_the_certificate_is_for_and_how_to_recognize_it() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let words = ["cert", "--name", "a.example", "--name", "192.0.2.7", "--name", "a.example", "--address", "::1"];
    let said = daemon.command(&[&words[..], &["--name", "*.b.example"]].concat());
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    assert!(said.out.contains("for a.example, 192.0.2.7, *.b.example, ::1\n"), "{said:?}");
    assert!(said.out.contains("server-cert.pem: valid until 20"), "{said:?}");
    let der = CertificateDer::from_pem_file(daemon.path("server-cert.pem")).expect("a certificate");
    fs::write(daemon.path("der"), &der).expect("a file");
    let digest = Command::new("sha256sum").arg(daemon.path("der")).output().expect("sha256sum of coreutils").stdout;
    let told = said.out.lines().find_map(|line| line.trim().strip_prefix("SHA-256 ")).expect("a fingerprint");
    let told = told.replace(':', "").to_lowercase();
    assert_eq!(told.as_bytes(), &digest[..64], "{said:?}");
    // The address is one: a client compares it with entries for addresses only.
    let entry = [0x87, 4, 192, 0, 2, 7];
    assert!(der.windows(entry.len()).any(|window| window == entry), "no entry for the address");
}
