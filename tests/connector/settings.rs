//! Settings and certificates: what is taken, and how what is wrong is refused (docs/protocol.md, "Files").

use crate::harness::{Certificate, Mode, Setup, chain_of_two, test_certificate};
use std::fs;

const EX_CONFIG: i32 = 78;

/// Starts with `settings` and expects a refusal that names the file and each of `says`.
#[track_caller]
fn refused(settings: &str, says: &[&str]) {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    fs::write(daemon.path("connector.conf"), settings).expect("a file");
    daemon.spawn();
    let status = daemon.wait();
    let log = daemon.log();
    assert_eq!(status.code(), Some(EX_CONFIG), "{settings} gave {log}");
    for word in says.iter().copied().chain(["connector.conf"]) {
        assert!(log.contains(word), "{settings} gave {log:?}, without {word:?}");
    }
}

/// The settings of a valid file with `key` set to the JSON `value`, or added.
fn valid_but(key: &str, value: &str) -> String {
    let mut keys = vec![("ports", "[\"20000-20010\"]"), ("exclude", "[]"), ("broker", "12345"), ("dev", "true")];
    keys.extend([("address", "\"127.0.0.1\""), ("listen", "\"127.0.0.1\"")]);
    keys.retain(|(name, _)| *name != key);
    keys.push((key, value));
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("  \"{key}\": {value}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

#[test]
fn text_that_is_no_json_is_refused_with_its_place() {
    refused("", &["line 1"]);
    refused("{\n  \"ports\": [\"6000\"],\n  // a comment\n  \"broker\": 1\n}", &["line 3", "column"]);
    refused("{\n  \"ports\": [\"6000\"],\n  # a comment\n  \"broker\": 1\n}", &["line 3", "column"]);
    refused("{\n  \"ports\": [\"6000\"],\n  \"broker\": 1,\n}", &["line 4", "column"]);
    refused("{\"ports\": [\"6000\"], \"broker\": 12345} {}", &["line 1", "column"]);
    refused("[]", &["line 1"]);
}

#[test]
fn a_wrong_key_or_type_is_refused_with_the_key() {
    refused(&valid_but("prots", "[]"), &["prots", "line"]);
    refused(&valid_but("ports", "\"6000\""), &["ports"]);
    refused(&valid_but("ports", "[6000]"), &["ports"]);
    refused(&valid_but("exclude", "7001"), &["exclude"]);
    refused(&valid_but("broker", "\"12345\""), &["broker"]);
    refused(&valid_but("dev", "\"yes\""), &["dev"]);
    refused(&valid_but("dev", "1"), &["dev"]);
    refused(&valid_but("listen", "true"), &["listen"]);
    refused(&valid_but("apiport", "\"8080\""), &["apiport"]);
    refused(&valid_but("controllers", "\"10.0.0.1\""), &["controllers"]);
    refused(&valid_but("connections", "1.5"), &["connections"]);
    refused(&valid_but("buffers", "-1"), &["buffers"]);
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_the_key() {
    for ports in ["7002-7000", "65536", "0", "0-10", "6000-70000", "", "-", "6000-", "http", "6000 - 6001x", "+6000"] {
        refused(&valid_but("ports", &format!("[\"20000\", \"{ports}\"]")), &["ports", ports]);
        refused(&valid_but("exclude", &format!("[\"{ports}\"]")), &["exclude", ports]);
    }
    refused(&valid_but("broker", "0"), &["broker"]);
    refused(&valid_but("broker", "65536"), &["broker"]);
    refused(&valid_but("apiport", "0"), &["apiport"]);
    refused(&valid_but("apiport", "-1"), &["apiport"]);
    refused(&valid_but("listen", "\"localhost\""), &["listen"]);
    refused(&valid_but("controllers", "[\"10.0.0.0/33\"]"), &["controllers", "10.0.0.0/33"]);
    refused(&valid_but("controllers", "[\"controller\"]"), &["controllers"]);
    refused(&valid_but("connections", "0"), &["connections"]);
    refused(&valid_but("buffers", "0"), &["buffers"]);
    refused(&valid_but("buffers", "1"), &["buffers", "from 2"]);
}

#[test]
fn a_missing_settings_file_is_named() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    fs::remove_file(daemon.path("connector.conf")).expect("it was written");
    daemon.spawn();
    let status = daemon.wait();
    assert_eq!(status.code(), Some(EX_CONFIG), "{}", daemon.log());
    assert!(daemon.log().contains("connector.conf"), "{}", daemon.log());
}

/// Starts in TLS mode after `spoil` and expects a refusal that names `file`.
#[track_caller]
fn refused_certificate(file: &str, spoil: impl Fn(&std::path::Path)) {
    let mut daemon = Setup::new(Mode::Tls).prepare();
    spoil(daemon.folder());
    daemon.spawn();
    let status = daemon.wait();
    assert_eq!(status.code(), Some(EX_CONFIG), "{}", daemon.log());
    assert!(daemon.log().contains(file), "{:?} does not name {file}", daemon.log());
}

#[test]
fn certificate_files_that_are_missing_or_wrong_are_named() {
    for file in ["server-cert.pem", "server-key.pem"] {
        refused_certificate(file, |folder| fs::remove_file(folder.join(file)).expect("it was written"));
        refused_certificate(file, |folder| fs::write(folder.join(file), "").expect("a file"));
        refused_certificate(file, |folder| fs::write(folder.join(file), "-----BEGIN NOTHING-----").expect("a file"));
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    refused_certificate("server-key.pem", |folder| {
        fs::write(folder.join("server-key.pem"), chain_of_two().key).expect("a file");
    });
}

#[test]
fn certificate_files_may_be_spelled_per() {
    let mut daemon = Setup::new(Mode::Tls).prepare();
    for name in ["server-cert", "server-key"] {
        let [from, to] = ["pem", "per"].map(|end| daemon.path(&format!("{name}.{end}")));
        fs::rename(from, to).expect("it was written");
    }
    daemon.start();
    assert_eq!(daemon.controller().status("all")["status"], "running");
}

#[test]
fn every_usual_form_of_key_serves() {
    let keys = |certificate: &str, key: &str| Certificate { chain: certificate.into(), key: key.into() };
    let rsa = include_str!("../fixtures/keys/rsa-cert.pem");
    let forms = [
        keys(rsa, include_str!("../fixtures/keys/rsa-pkcs8.pem")),
        keys(rsa, include_str!("../fixtures/keys/rsa-pkcs1.pem")),
        keys(include_str!("../fixtures/keys/ec-cert.pem"), include_str!("../fixtures/keys/ec-sec1.pem")),
    ];
    for certificate in forms {
        let daemon = Setup::new(Mode::Tls).certificate(certificate).start();
        daemon.pair(&daemon.add_public(1));
    }
}

#[test]
fn the_whole_chain_is_sent() {
    let daemon = Setup::new(Mode::Tls).certificate(chain_of_two()).start();
    daemon.pair(&daemon.add_public(1)); // the client takes nothing but both certificates
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let daemon = Setup::new(Mode::Tls).start();
    for version in rustls::ALL_VERSIONS {
        let mapping = daemon.add_public(1);
        let [agent, user] = mapping.ports.map(|port| {
            let dial = daemon.dial(port).with_tls(test_certificate().client(&[version]));
            dial.connect().unwrap_or_else(|error| panic!("{version:?}: {error}"))
        });
        agent.authorize(&mapping, 0);
        user.send(b"question");
        agent.expect_message(b"question");
        agent.send(b"answer");
        user.expect_message(b"answer");
    }
}
