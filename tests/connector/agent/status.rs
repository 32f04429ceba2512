//! `agent status`: what an agent says of itself.

use crate::harness::{
    AgentProgram, Listed, Mode, PATIENCE, Service, Setup, in_both_versions, in_both_versions_plain, wait_until,
};
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

fn services(agent: &AgentProgram) -> Vec<Value> {
    let (text, status) = agent.status(&["--json"]);
    assert_eq!(status, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    report["services"].as_array().expect("a list").clone()
}

#[test]
fn connections_sessions_and_bytes_of_each_service_are_told() {
    in_both_versions(|daemon, version| {
        let (echo, one, two) = (Service::echo(), daemon.add_public(3), daemon.add_public(2));
        let listed = |name, mapping| Listed { name, mapping, side: 0, local: ("to", echo.port), connections: 2 };
        let agent = AgentProgram::of_services(daemon, &[listed("one", &one), listed("two", &two)]).with_socket();
        let agent = agent.speaking(version).spawn();
        let user = daemon.user(&one);
        user.send(b"first");
        user.expect(b"first");
        user.send(b"second");
        user.expect(b"second");
        wait_until("all are connected", PATIENCE, || {
            services(&agent).iter().all(|service| service["connections"].as_u64() >= Some(2))
        });
        let told = services(&agent);
        let figures = |of: &Value| ["sessions", "totalsessions", "received", "sent"].map(|key| of[key].as_u64());
        assert_eq!(told[0]["name"], "one");
        assert_eq!(figures(&told[0]), [1, 1, 11, 11].map(Some), "{told:?}");
        assert_eq!(figures(&told[1]), [0, 0, 0, 0].map(Some), "{told:?}");
        user.finish();
        wait_until("the session is over", PATIENCE, || services(&agent)[0]["sessions"] == 0);
        let (table, _) = agent.status(&[]);
        assert!(table.contains("one") && table.contains("0 (1 in all)"), "{table}");
    });
}

#[test]
fn the_last_error_is_told() {
    in_both_versions_plain(|daemon, version| {
        let mut echo = Service::echo();
        echo.stop();
        let mapping = daemon.add_public(1);
        let agent =
            AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(echo.port, 1).with_socket().start();
        assert_eq!(services(&agent)[0]["lasterror"], Value::Null);
        daemon.user(&mapping).send(b"x");
        let problem = || services(&agent)[0]["lasterror"]["problem"].as_str().unwrap_or_default().to_owned();
        wait_until("the refusal is told", PATIENCE, || problem().contains("cannot be reached"));
        let (text, _) = agent.status(&[]);
        assert!(text.contains("agent: last error"), "{text}");
    });
}

#[test]
fn an_agent_that_is_gone_is_told_from_one_that_runs() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (echo, mapping) = (Service::echo(), daemon.add_public(1));
    let listed = || [Listed { name: "one", mapping: &mapping, side: 0, local: ("to", echo.port), connections: 1 }];
    let mut agent = AgentProgram::of_services(daemon, &listed()).with_socket().start();
    assert_eq!(agent.status(&[]).1, Some(0));
    let mut second =
        AgentProgram::of_services(daemon, &listed()).with(&["--socket", &agent.socket().display().to_string()]);
    second.respawn();
    assert_eq!(second.wait().code(), Some(73), "{}", second.log());
    // What a killed one left is in nobody's way.
    agent.kill();
    assert_eq!(agent.status(&[]).1, Some(3));
    assert!(agent.socket().exists());
    agent.respawn();
    wait_until("it answers", PATIENCE, || agent.status(&[]).1 == Some(0));
    assert!(agent.terminate().success());
    assert!(!agent.socket().exists());
}

#[test]
fn callers_that_read_nothing_disturb_nobody() {
    let daemon = &Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let echo = Service::echo();
    let agent = AgentProgram::new(daemon, &mapping, 0).exposing(echo.port, 1).with_socket().start();
    let callers: Vec<_> = (0..10).map(|_| UnixStream::connect(agent.socket()).expect("it answers")).collect();
    let user = daemon.user(&mapping);
    user.send(b"hello");
    user.expect(b"hello");
    assert_eq!(agent.status(&[]).1, Some(0));
    drop(callers);
}

#[test]
fn whatever_is_no_agents_status_is_said_to_be_none() {
    let agent = AgentProgram::bare("hush-hush-hush");
    let listener = UnixListener::bind(agent.socket()).expect("a socket");
    let answers = [("{}", "this is no agent's status: line 1"), ("[]", "this is no agent's status"), ("", "no answer")];
    let impostor = thread::spawn(move || {
        for (answer, _) in answers {
            let (mut stream, _) = listener.accept().expect("a caller");
            stream.write_all(answer.as_bytes()).expect("a reader");
        }
    });
    for (answer, words) in answers {
        let (said, status) = agent.status(&[]);
        assert!(status == Some(1) && said.contains(words) && !said.contains("struct"), "{answer}: {said}");
    }
    impostor.join().expect("it answered");
}
