//! `controllerca`: only who shows a certificate that the authority signed may speak to the API.

use crate::harness::{
    Authority, Certificate, Controller, Daemon, Mode, PATIENCE, Setup, public_mapping, test_certificate, wait_until,
};
use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use std::fs;
use std::io;

const ASK: (&str, &str) = ("/api/v2/status", "mappingid=all");

/// A daemon that demands certificates of this authority, and a Controller that has one.
fn start(authority: &Authority) -> (Daemon, Controller) {
    let mut daemon = Setup::new(Mode::Tls).set("controllerca", "controllers.pem").prepare();
    fs::write(daemon.path("controllers.pem"), authority.pem()).expect("a file");
    daemon.spawn();
    let controller = controller_with(&daemon, &authority.leaf());
    wait_until("the API answers", PATIENCE, || controller.try_post(ASK.0, ASK.1).is_ok());
    (daemon, controller)
}

fn controller_with(daemon: &Daemon, own: &Certificate) -> Controller {
    let dial = daemon.dial(daemon.ports.api());
    Controller { dial: dial.with_tls(test_certificate().client_with(own, ALL_VERSIONS)) }
}

/// Expects to be refused by TLS, with an alert that tells why.
#[track_caller]
fn expect_alert(answer: io::Result<crate::harness::Answer>, alerts: &[&str]) {
    let error = answer.expect_err("no answer").to_string();
    assert!(alerts.iter().any(|alert| error.contains(alert)), "{error:?} is none of {alerts:?}");
}

#[test]
fn a_controller_with_a_certificate_is_served_in_both_versions() {
    let authority = Authority::new();
    let (daemon, _) = start(&authority);
    for version in [&TLS12, &TLS13] {
        let tls = test_certificate().client_with(&authority.leaf(), &[version]);
        let controller = Controller { dial: daemon.dial(daemon.ports.api()).with_tls(tls) };
        let mapping = controller.add(&public_mapping(1, 0));
        controller.remove(&mapping);
    }
}

#[test]
fn agents_and_users_need_none() {
    let (daemon, controller) = start(&Authority::new());
    let mapping = controller.add(&public_mapping(1, 0));
    daemon.pair(&mapping);
}

#[test]
fn whoever_has_none_or_a_wrong_one_is_refused_and_named() {
    let authority = Authority::new();
    let (daemon, controller) = start(&authority);
    for version in [&TLS12, &TLS13] {
        let without = daemon.dial(daemon.ports.api()).with_tls(test_certificate().client(&[version]));
        expect_alert(Controller { dial: without }.try_post(ASK.0, ASK.1), &["CertificateRequired", "HandshakeFailure"]);
    }
    let stranger = controller_with(&daemon, &Authority::new().leaf());
    expect_alert(stranger.try_post(ASK.0, ASK.1), &["UnknownCA", "DecryptError", "BadCertificate"]);
    let early = controller_with(&daemon, &authority.leaf_of_the_future());
    expect_alert(early.try_post(ASK.0, ASK.1), &["CertificateExpired", "BadCertificate"]);
    for reason in ["it has no client certificate", "its client certificate is not taken"] {
        let refused = format!("API connection from 127.0.0.1 refused: {reason}");
        wait_until(reason, PATIENCE, || daemon.log().contains(&refused));
        // One line about an address and a reason, and no other one for a while.
        assert_eq!(daemon.log().matches(&refused).count(), 1, "{}", daemon.log());
    }
    assert_eq!(controller.post(ASK.0, ASK.1).status, 200);
}

/// A session that began at a public port is not resumed at the API's, where its client would have had to show more.
#[test]
fn a_session_of_a_public_port_opens_no_door() {
    let (daemon, controller) = start(&Authority::new());
    let mapping = controller.add(&public_mapping(2, 0));
    for version in [&TLS12, &TLS13] {
        let shared = test_certificate().client(&[version]);
        let agent = daemon.dial(mapping.ports[0]).with_tls(shared.clone()).connect().expect("a connection");
        // What the agent hears comes behind the tickets for further sessions.
        agent.authorize(&mapping, 0);
        let intruder = Controller { dial: daemon.dial(daemon.ports.api()).with_tls(shared) };
        assert!(intruder.try_post(ASK.0, ASK.1).is_err());
    }
}

#[test]
fn the_command_line_beside_the_key_is_let_in() {
    let (mut daemon, _controller) = start(&Authority::new());
    let said = daemon.command(&["status"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(daemon.command(&["check"]).status, 0);
    assert_eq!(daemon.command(&["stop"]).status, 0);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn another_authority_is_taken_over_without_a_restart() {
    let (daemon, old) = start(&Authority::new());
    let next = Authority::new();
    let new = controller_with(&daemon, &next.leaf());
    assert!(new.try_post(ASK.0, ASK.1).is_err());
    fs::write(daemon.path("controllers.pem"), next.pem()).expect("a file");
    daemon.signal(libc::SIGHUP);
    wait_until("the new one is believed", PATIENCE, || new.try_post(ASK.0, ASK.1).is_ok());
    assert!(old.try_post(ASK.0, ASK.1).is_err());
    fs::write(daemon.path("controllers.pem"), "nonsense").expect("a file");
    daemon.signal(libc::SIGHUP);
    wait_until("the log names the file", PATIENCE, || {
        daemon.log().contains("Reload failed") && daemon.log().contains("controllers.pem: no certificate")
    });
    assert!(new.try_post(ASK.0, ASK.1).is_ok());
}

#[test]
fn without_an_authority_the_daemon_does_not_start() {
    let mut daemon = Setup::new(Mode::Tls).set("controllerca", "controllers.pem").prepare();
    for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        if let Some(content) = content {
            fs::write(daemon.path("controllers.pem"), content).expect("a file");
        }
        let before = daemon.log().len();
        daemon.spawn();
        assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log());
        assert!(daemon.log()[before..].contains("controllers.pem: "), "{}", daemon.log());
        let said = daemon.command(&["check"]);
        assert!(said.status == 78 && said.err.contains("controllers.pem"), "{said:?}");
    }
}
