//! What the agent says about settings that it cannot use, and its exit status.

use crate::harness::{AgentProgram, Mode, PATIENCE, Setup, wait_until};
use serde_json::json;

#[track_caller]
fn expect_refusal(mut agent: AgentProgram, status: i32, words: &[&str]) {
    assert_eq!(agent.wait().code(), Some(status), "{}", agent.log());
    for word in words {
        assert!(agent.log().contains(word), "{word:?} is not in the log:\n{}", agent.log());
    }
}

#[test]
fn a_wrong_key_is_named_with_its_file_and_what_was_expected() {
    let refused = |text, words: &[&str]| expect_refusal(AgentProgram::configured(text, "secret").spawn(), 78, words);
    refused(r#"{"port": 70000}"#, &["agent.json", "\"port\"", "70000", "1 to 65535"]);
    refused("{\n\"port\": 1,}", &["agent.json", "line 2"]);
    refused(r#"{"passcode": ["secret"]}"#, &["\"passcode\"", "expected"]);
}

#[test]
fn what_is_missing_is_named_with_the_option_for_it() {
    let with = |options: &[&str]| AgentProgram::bare("secret").with(options).spawn();
    expect_refusal(with(&["--to", "127.0.0.1:1"]), 64, &["--connector"]);
    expect_refusal(with(&["--connector", "127.0.0.1:1"]), 64, &["--to"]);
    let no_passcode = AgentProgram::configured(r#"{"host":"a","port":1,"localport":1}"#, "secret");
    expect_refusal(no_passcode.spawn(), 64, &["IOFOG_PASSCODE", "--passcode-file"]);
}

#[test]
fn files_that_cannot_be_had_are_named() {
    let ready = || AgentProgram::bare("secret").with(&["--connector", "127.0.0.1:1", "--to", "127.0.0.1:1"]);
    for (option, status, words) in [
        ("--access-log", 73, "accesslog: /nowhere/it cannot be written"),
        ("--log-file", 73, "/nowhere/it: cannot be written"),
        ("--socket", 73, "--socket: /nowhere/it cannot be listened on"),
        ("--ca", 78, "/nowhere/it: cannot be read"),
    ] {
        expect_refusal(ready().with(&["--dev", option, "/nowhere/it"]).spawn(), status, &[words]);
    }
}

#[test]
fn a_passcode_that_was_not_copied_whole_is_warned_of_on_both_sides() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let part = &mapping.passcodes[0][..15];
    let service = json!({"name": "web", "port": mapping.ports[0], "passcode": part, "to": "127.0.0.1:1"});
    let settings = json!({"connector": "127.0.0.1", "dev": true, "services": [service]}).to_string();
    let mut agent = AgentProgram::configured(&settings, part);
    let warning = "Service \"web\": the passcode has 15 bytes, those of Connectors have 36: is it complete?";
    let (said, status) = agent.check();
    assert!(status == Some(0) && said.contains(warning), "{said}");
    agent.respawn();
    agent.wait_for(warning);
    wait_until("it has dialled", PATIENCE, || daemon.controller().status(&mapping.id)["unauthorized"] == 1);
    assert!(agent.terminate().success());
    assert!(agent.log().contains("Stopping: SIGTERM"), "{}", agent.log());
    let told = "rejected, its passcode has 15 of 36 bytes";
    wait_until("the daemon tells of it", PATIENCE, || daemon.log().contains(told));
}

#[test]
fn the_passcode_may_be_in_the_environment() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let configuration = format!(r#"{{"host":"127.0.0.1","port":{},"localport":1,"devmode":true}}"#, mapping.ports[0]);
    let agent = AgentProgram::configured(&configuration, &mapping.passcodes[0]).with_passcode_in_environment();
    agent.start();
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let agent = AgentProgram::bare("secret").with(&["--dev", "--connector", "127.0.0.1:1"]).listening(port, 1);
    expect_refusal(agent.spawn(), 69, &["--listen", &port.to_string()]);
}
