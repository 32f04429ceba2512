//! status: 0 running, 3 stopped, 1 unknown; for people and for programs.

use crate::harness::{Certificate, Daemon, Mode, Setup, in_both_modes};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;
use std::fs;

#[test]
fn a_running_daemon_is_described() {
    in_both_modes(|daemon| {
        daemon.add_public(1);
        let said = daemon.command(&["status"]);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
        assert_eq!(said.out.lines().next(), Some("iofog-connector is up and running."));
        assert_eq!(said.fact("version"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(said.fact("pid"), Some(daemon.pid().to_string().as_str()));
        assert_eq!(said.fact("mappings"), Some("1"));
        let (mode, scheme) = match daemon.mode {
            Mode::Plain => ("dev (no TLS)", "http"),
            Mode::Tls => ("TLS", "https"),
        };
        assert_eq!(said.fact("mode"), Some(mode));
        assert_eq!(said.fact("API"), Some(format!("{scheme}://127.0.0.1:{}", daemon.ports.api()).as_str()));
        assert_eq!(said.fact("certificate").is_some(), daemon.mode == Mode::Tls, "{said:?}");
        for name in ["uptime", "agents", "users", "throughput", "connections"] {
            assert!(said.fact(name).is_some(), "no {name} in {said:?}");
        }
    });
}

#[test]
fn programs_get_json() {
    in_both_modes(|daemon| {
        let said = daemon.command(&["status", "--json"]);
        let json: Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!((said.status, &json["status"]), (0, &"running".into()), "{said:?}");
        assert_eq!(json["pid"], daemon.pid());
        assert_eq!(json["daemon"]["mappings"], 0);
        assert_eq!(json["mode"], if daemon.mode == Mode::Tls { "tls" } else { "dev" });
        assert_eq!(json["certificate"].is_null(), daemon.mode == Mode::Plain);
    });
}

#[test]
fn a_stopped_daemon_is_stopped_whatever_its_settings() {
    let daemon = Setup::new(Mode::Tls).prepare();
    let said = daemon.command(&["status"]);
    assert_eq!((said.status, said.out.as_str()), (3, "iofog-connector is stopped.\n"), "{said:?}");
    assert_eq!(daemon.command(&["status", "--json"]).out, "{\"status\":\"stopped\"}\n");
    fs::write(daemon.path("connector.conf"), "{").expect("a file");
    assert_eq!(daemon.command(&["status"]).status, 3);
}

#[test]
fn of_a_daemon_that_does_not_answer_nobody_can_tell() {
    let daemon = Setup::new(Mode::Plain).start();
    daemon.signal(libc::SIGSTOP);
    let said = daemon.command(&["status"]);
    daemon.signal(libc::SIGCONT);
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("unknown: ") && said.err.contains(&daemon.pid().to_string()), "{said:?}");
}

#[test]
fn with_settings_that_have_become_invalid_nobody_can_tell() {
    let daemon = Setup::new(Mode::Plain).start();
    fs::write(daemon.path("connector.conf"), "{\"ports\": 1}").expect("a file");
    let said = daemon.command(&["status"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains("connector.conf, line 1"), "{said:?}");
    let json: Value = serde_json::from_str(&daemon.command(&["status", "--json"]).out).expect("JSON");
    assert_eq!(json["status"], "unknown");
}

/// A certificate of a name that is not the address's, valid until the first of that month.
fn certificate_until(year: i32, month: u8) -> Certificate {
    let mut parameters = CertificateParams::new(["somewhere.else.example".to_owned()]).expect("a name");
    parameters.not_after = date_time_ymd(year, month, 1);
    let key = KeyPair::generate().expect("a key");
    Certificate { chain: parameters.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

#[test]
fn the_daemons_own_certificate_is_trusted_whatever_its_name_and_its_end_is_told() {
    let daemon = Setup::new(Mode::Tls).certificate(certificate_until(2400, 1)).start();
    let said = daemon.command(&["status"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    assert!(said.fact("certificate").is_some_and(|text| text.contains("2400-01-01")), "{said:?}");
    let daemon = Setup::new(Mode::Tls).certificate(certificate_until(2020, 6)).start();
    let said = daemon.command(&["status"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.err.contains("invalid since 2020-06-01"), "{said:?}");
    assert!(daemon.log().contains("invalid since 2020-06-01"), "{}", daemon.log());
}

#[test]
fn another_certificate_is_not_trusted_with_the_token() {
    let daemon = Setup::new(Mode::Tls).set("apitoken", "token");
    let mut daemon = daemon.prepare();
    fs::write(daemon.path("token"), "s3cret\n").expect("a file");
    daemon.start();
    assert_eq!(daemon.command(&["status"]).status, 0);
    fs::write(daemon.path("server-cert.pem"), certificate_until(2400, 1).chain).expect("a file");
    let said = daemon.command(&["status"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains("has another certificate"), "{said:?}");
}

#[test]
fn a_daemon_that_refuses_to_say_more_runs_all_the_same() {
    let mut daemon = Setup::new(Mode::Plain).set("apitoken", "token").prepare();
    fs::write(daemon.path("token"), "right\n").expect("a file");
    daemon.start();
    fs::write(daemon.path("token"), "wrong\n").expect("a file");
    let said = daemon.command(&["status"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.starts_with("iofog-connector is up and running.\n"), "{said:?}");
    assert!(said.err.contains("bearer token is wrong"), "{said:?}");
}

#[test]
fn a_look_at_the_lock_says_why_it_cannot_tell() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let look = |daemon: &Daemon| daemon.command(&["status", "--lock"]);
    let said = look(&daemon);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "", ""));
    daemon.terminate();
    let said = look(&daemon);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (3, "", ""));
    fs::create_dir(daemon.path("connector.conf.pid")).expect("a folder");
    let said = look(&daemon);
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("unknown: ") && said.err.contains("connector.conf.pid"), "{said:?}");
}
