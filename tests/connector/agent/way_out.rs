//! The way to the Connector: proxies, the local address, the name in its certificate.

use crate::harness::{
    AgentProgram, Authority, Daemon, Mapping, Mode, PATIENCE, Service, Setup, in_both_versions, wait_until,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// An agent with one service and these keys beside the list.
fn agent(daemon: &Daemon, mapping: &Mapping, to: &Service, keys: &Value) -> AgentProgram {
    let agent = AgentProgram::of_services(daemon, &[]);
    // One of the two tells whom to trust.
    let trust = if keys.get("cert").is_some() { Value::Null } else { json!("ca.pem") };
    let mut settings = json!({"connector": "127.0.0.1", "ca": trust, "dev": daemon.mode == Mode::Plain, "services": [
        {"name": "one", "port": mapping.ports[0], "passcode": mapping.passcodes[0], "to": format!("127.0.0.1:{}", to.port),
         "connections": 2}]});
    for (key, value) in keys.as_object().expect("keys") {
        settings[key] = value.clone();
    }
    settings.as_object_mut().expect("keys").retain(|_, value| !value.is_null());
    agent.configure(&settings.to_string());
    agent
}

fn join(one: TcpStream, other: TcpStream) {
    let pump = |from: &TcpStream, to: &TcpStream| {
        let _ = std::io::copy(&mut &*from, &mut &*to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pump(&one, &other));
        pump(&other, &one);
    });
}

/// A proxy that takes CONNECT, and this `Proxy-Authorization` only if there is one.
fn http_proxy(login: Option<&'static str>) -> (Service, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let proxy = Service::start(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        assert!(reader.buffer().is_empty(), "something was sent before the answer");
        if login.is_some_and(|login| !lines.contains(&format!("Proxy-Authorization: Basic {login}"))) {
            let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
            return;
        }
        let target =
            lines[0].strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")).expect("CONNECT");
        let Ok(other) = TcpStream::connect(target) else {
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
            return;
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n");
        join(stream, other);
    });
    (proxy, served)
}

/// A proxy that speaks SOCKS5, and wants user and password if there are some. It knows the name `relay.test` only.
fn socks_proxy(login: Option<(&'static str, &'static str)>) -> Service {
    Service::start(move |mut stream| {
        let talk = |stream: &mut TcpStream| -> std::io::Result<TcpStream> {
            let mut take = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let count = take(2)?[1].into();
            let method = if login.is_some() { 2 } else { 0 };
            if !take(count)?.contains(&method) {
                stream.write_all(&[5, 255])?;
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            stream.write_all(&[5, method])?;
            let mut take = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            if let Some((user, password)) = login {
                let length = take(2)?[1].into();
                let named = take(length)?;
                let length = take(1)?[0].into();
                let known = named == user.as_bytes() && take(length)? == password.as_bytes();
                stream.write_all(&[1, u8::from(!known)])?;
            }
            let mut take = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let head = take(4)?;
            assert_eq!(head[..3], [5, 1, 0]);
            assert_eq!(head[3], 3, "the proxy looks names up");
            let length = take(1)?[0].into();
            assert_eq!(take(length)?, b"relay.test");
            let port = take(2)?;
            let other = TcpStream::connect(("127.0.0.1", u16::from_be_bytes([port[0], port[1]])))?;
            stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
            Ok(other)
        };
        if let Ok(other) = talk(&mut stream) {
            join(stream, other);
        }
    })
}

#[track_caller]
fn expect_service(daemon: &Daemon, mapping: &Mapping) {
    for seed in 0..3 {
        daemon.user(mapping).download(seed, 300_000);
    }
}

#[test]
fn the_connector_is_reached_through_an_http_proxy() {
    in_both_versions(|daemon, version| {
        let (service, mapping, (proxy, served)) = (Service::downloads(), daemon.add_public(2), http_proxy(None));
        let keys = json!({"proxy": format!("http://127.0.0.1:{}", proxy.port)});
        let _agent = agent(daemon, &mapping, &service, &keys).speaking(version).start();
        expect_service(daemon, &mapping);
        assert!(served.load(Ordering::Relaxed) >= 1);
    });
}

#[test]
fn an_http_proxy_may_ask_for_a_password() {
    let daemon = &Setup::new(Mode::Plain).start();
    // "user:secret"
    let (service, mapping) = (Service::downloads(), daemon.add_public(2));
    let (proxy, _) = http_proxy(Some("dXNlcjpzZWNyZXQ="));
    let wrong = json!({"proxy": format!("http://user:guessed@127.0.0.1:{}", proxy.port)});
    let refused = agent(daemon, &mapping, &service, &wrong).spawn();
    refused.wait_for("407 Proxy Authentication Required");
    assert!(!refused.log().contains("guessed"), "{}", refused.log());
    let right = json!({"proxy": format!("http://us%65r:s%65cret@127.0.0.1:{}", proxy.port)});
    let _agent = agent(daemon, &mapping, &service, &right).start();
    expect_service(daemon, &mapping);
}

#[test]
fn the_connector_is_reached_through_socks_and_its_name_is_looked_up_there() {
    in_both_versions(|daemon, version| {
        let service = Service::downloads();
        for login in [None, Some(("user", "secret"))] {
            let (mapping, proxy) = (daemon.add_public(2), socks_proxy(login));
            let prefix = login.map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
            let proxy_url = format!("socks5://{prefix}127.0.0.1:{}", proxy.port);
            let keys = json!({"connector": "relay.test", "proxy": proxy_url});
            let _agent = agent(daemon, &mapping, &service, &keys).speaking(version).start();
            expect_service(daemon, &mapping);
        }
    });
}

#[test]
fn a_proxy_that_refuses_is_named_with_its_reason() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (service, mapping, proxy) = (Service::echo(), daemon.add_public(1), socks_proxy(Some(("user", "secret"))));
    let keys = json!({"proxy": format!("socks5://127.0.0.1:{}", proxy.port)});
    let refused = agent(daemon, &mapping, &service, &keys).spawn();
    refused.wait_for(&format!("the proxy 127.0.0.1:{}: it wants a user and a password", proxy.port));
    let keys = json!({"proxy": format!("http://127.0.0.1:{}", service.port)});
    let confused = agent(daemon, &mapping, &service, &keys).spawn();
    confused.wait_for("it does not speak HTTP");
    let mut shown =
        AgentProgram::bare("hush-hush").with(&["--connector", "a:1", "--to", "a:1", "--proxy", "http://u:p@a:1"]);
    shown.respawn();
    assert_eq!(shown.wait().code(), Some(64), "{}", shown.log());
}

#[test]
fn connections_come_from_the_address_that_is_given() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (service, mapping) = (Service::downloads(), daemon.add_public(2));
    let _agent = agent(daemon, &mapping, &service, &json!({"bind": "127.0.0.9"})).start();
    expect_service(daemon, &mapping);
    wait_until("the daemon says where it came from", PATIENCE, || daemon.log().contains("agent 127.0.0.9:"));
}

#[test]
fn connections_go_out_through_the_interface_that_is_given() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (service, mapping) = (Service::downloads(), daemon.add_public(2));
    let working = agent(daemon, &mapping, &service, &json!({"bind": "lo"})).start();
    expect_service(daemon, &mapping);
    drop(working);
    agent(daemon, &mapping, &service, &json!({"bind": "nowhere0"}))
        .spawn()
        .wait_for("interface nowhere0: No such device");
    for wrong in ["a/b", "an-interface-name-too-long", "127.0.0.1:80"] {
        let (said, status) = agent(daemon, &mapping, &service, &json!({"bind": wrong})).check();
        assert!(status == Some(78) && said.contains("key \"bind\"") && said.contains("network interface"), "{said}");
    }
}

#[test]
fn the_certificate_may_be_for_another_name_than_the_one_that_is_dialled() {
    // For `localhost`.
    let authority = Authority::new();
    let daemon = &Setup::new(Mode::Tls).certificate(authority.leaf()).start();
    let (service, mapping) = (Service::downloads(), daemon.add_public(2));
    let base64: String = authority.pem().lines().filter(|line| !line.starts_with('-')).collect();
    let with = |keys: &Value| {
        let mut all = json!({"cert": base64});
        keys.as_object().expect("keys").iter().for_each(|(key, value)| all[key] = value.clone());
        agent(daemon, &mapping, &service, &all)
    };
    with(&json!({})).spawn().wait_for("it is not for 127.0.0.1");
    let _agent = with(&json!({"servername": "localhost"})).start();
}
