//! Which Connector an agent believes (TLS).

use crate::harness::{AgentProgram, Authority, Daemon, Mapping, Mode, Service, Setup, test_certificate};
use serde_json::json;

/// An agent that dials `localhost`, the name in all certificates of the tests.
fn agent(daemon: &Daemon, mapping: &Mapping, host: &str) -> AgentProgram {
    assert_eq!(daemon.mode, Mode::Tls);
    let connector = format!("{host}:{}", mapping.ports[0]);
    AgentProgram::bare(&mapping.passcodes[0]).with(&["--connector", &connector]).exposing(1, 1)
}

#[test]
fn a_configuration_of_the_field_works_as_it_is() {
    let daemon = Setup::new(Mode::Tls).start();
    let (service, mapping) = (Service::echo(), daemon.add_public(2));
    let base64: String = test_certificate().chain.lines().filter(|line| !line.starts_with('-')).collect();
    let configuration = json!({
        "mode": "public", "host": "127.0.0.1", "port": mapping.ports[0], "connectioncount": 2,
        "passcode": mapping.passcodes[0], "localhost": "localhost", "localport": service.port,
        "heartbeatfrequency": 20000, "heartbeatabsencethreshold": 60000, "cert": base64, "devmode": false,
    });
    let _agent = AgentProgram::configured(&configuration.to_string(), &mapping.passcodes[0]).start();
    let user = daemon.user(&mapping);
    user.send(b"hello");
    user.expect(b"hello");
}

#[test]
fn another_self_signed_certificate_is_refused() {
    let daemon = Setup::new(Mode::Tls).start();
    let mapping = daemon.add_public(1);
    let other = Authority::new().leaf();
    agent(&daemon, &mapping, "localhost").trusting(&other.chain).spawn().wait_for("certificate refused");
    agent(&daemon, &mapping, "localhost").with_file_in("SSL_CERT_FILE", &other.chain).spawn().wait_for("refused");
}

#[test]
fn a_chain_is_checked_and_so_is_the_name() {
    let authority = Authority::new();
    let leaf = authority.leaf();
    let daemon = Setup::new(Mode::Tls).certificate(leaf.clone()).start();
    let mapping = daemon.add_public(4);
    let _configured = agent(&daemon, &mapping, "localhost").trusting(&authority.pem()).start();
    let _systems = agent(&daemon, &mapping, "localhost").with_file_in("SSL_CERT_FILE", &authority.pem()).start();
    let by_address = agent(&daemon, &mapping, "127.0.0.1").trusting(&authority.pem()).spawn();
    by_address.wait_for("it is not for 127.0.0.1; if it should be for another name");
    // The Connector's own certificate is enough, whatever it is for.
    let server = leaf.chain.split_inclusive("-----END CERTIFICATE-----\n").next().expect("a certificate");
    let _itself = agent(&daemon, &mapping, "127.0.0.1").trusting(server).start();
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_tried_again() {
    let authority = Authority::new();
    let mut daemon = Setup::new(Mode::Tls).certificate(authority.leaf_of_the_future()).start();
    let mapping = daemon.add_public(1);
    let agent = agent(&daemon, &mapping, "localhost").trusting(&authority.pem()).spawn();
    agent.wait_for("not valid yet");
    daemon.terminate();
    daemon.install(&authority.leaf());
    daemon.start();
    agent.wait_for("Authorized");
}
