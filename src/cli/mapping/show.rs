//! What `mapping show` has to say of a mapping, for people.

use super::plain;
use crate::cli::units::{date, duration, size};
use crate::plural::counted;
use serde_json::Value;

/// Names and values; what the daemon did not report has no line.
pub(super) fn facts(answer: &Value) -> Vec<(&'static str, String)> {
    let (options, is_private) = (&answer["options"], answer["type"] == "private");
    let said = |value: &Value| (!value.is_null()).then(|| plain(value));
    let seconds = |value: &Value| Some(format!("{} s", value.as_u64()?));
    let sides = if is_private { ["port1", "port2"] } else { ["", "none"] };
    let [first, second] = if is_private { ["agents 1", "agents 2"] } else { ["agents", ""] };
    let facts = [
        ("id", said(&answer["id"])),
        ("name", said(&options["name"])),
        ("type", said(&answer["type"]).or_else(|| Some("direct".to_owned()))),
        ("port 1", port(answer, "port1", if is_private { "private1" } else { "private" })),
        ("port 2", port(answer, "port2", if is_private { "private2" } else { "public" })),
        ("limits", limits(answer, sides[0])),
        ("limits 2", limits(answer, sides[1])),
        ("users connect", said(&options["users"])),
        ("allow", options["allow"].as_array().map(|ranges| list(ranges))),
        ("proxy protocol", said(&options["proxyprotocol"])),
        ("max users", options["maxusers"].as_u64().map(|most| format!("{} of one address", counted(most, "session")))),
        ("wait time", seconds(&options["waittime"])),
        ("idle timeout", seconds(&options["idletimeout"])),
        (first, agents(answer, sides[0])),
        (second, agents(answer, sides[1])),
        ("sessions", said(&answer["joined"])),
        ("users", users(answer)),
        ("bytes", bytes(answer)),
        ("discarded", answer["discarded"].as_u64().filter(|bytes| *bytes > 0).map(size)),
        ("since", answer["since"].as_u64().and_then(date)),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn port(answer: &Value, key: &str, state: &str) -> Option<String> {
    let whose = if state == "public" { "users" } else { "agents" };
    let lacks = if answer[state] == "Active" { "" } else { ", not bound (tried again every second)" };
    Some(format!("{}, {whose}{lacks}", answer[key].as_u64()?))
}

fn limits(answer: &Value, port: &str) -> Option<String> {
    let most = answer[format!("maxconnections{port}")].as_u64()?;
    let silence = match answer[format!("heartbeatabsencethreshold{port}")].as_u64()? {
        0 => "for ever".to_owned(),
        millis if millis < 1000 => format!("for {millis} ms"),
        millis => format!("for {}", duration(millis)),
    };
    Some(format!("{} of agents, which may be silent {silence}", counted(most, "connection")))
}

fn agents(answer: &Value, port: &str) -> Option<String> {
    let number = |key: &str| answer[format!("{key}{port}")].as_u64();
    let [agents, free, rejected] = [number("agents")?, number("free")?, number("rejected")?];
    let rejected = if rejected > 0 { format!(", {}", counted(rejected, "wrong passcode")) } else { String::new() };
    Some(format!("{agents} ({free} free, {} joined){rejected}", agents.saturating_sub(free)))
}

fn users(answer: &Value) -> Option<String> {
    let number = |key: &str| answer[key].as_u64();
    let [users, waiting, silent] = [number("users")?, number("waiting")?, number("silent")?];
    Some(format!("{users} ({waiting} waiting for an agent, {silent} silent)"))
}

fn bytes(answer: &Value) -> Option<String> {
    let [one, two] = [answer["bytesport1"].as_u64()?, answer["bytesport2"].as_u64()?];
    Some(format!("{} from port 1, {} from port 2", size(one), size(two)))
}

fn list(values: &[Value]) -> String {
    if values.is_empty() { "nobody".to_owned() } else { values.iter().map(plain).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(answer: &Value) -> Vec<String> {
        facts(answer).into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn a_public_mapping_is_told_with_its_options() {
        let answer = json!({
            "id": "i", "timestamp": 1, "public": "Active", "private": "Inactive", "agents": 3, "free": 2, "joined": 1,
            "unauthorized": 0, "rejected": 0, "users": 1, "waiting": 0, "silent": 0, "bytesport1": 2048,
            "bytesport2": 3, "discarded": 0, "unsettled": 0, "since": 1_700_000_000_000_u64, "type": "public",
            "port1": 6000, "port2": 6001, "maxconnections": 60, "heartbeatabsencethreshold": 200_000,
            "options": {"name": "web", "allow": ["::1", "10.0.0.0/8"], "waittime": 7},
        });
        let expected = [
            "id: i",
            "name: web",
            "type: public",
            "port 1: 6000, agents, not bound (tried again every second)",
            "port 2: 6001, users",
            "limits: 60 connections of agents, which may be silent for 3 min 20 s",
            "allow: ::1, 10.0.0.0/8",
            "wait time: 7 s",
            "agents: 3 (2 free, 1 joined)",
            "sessions: 1",
            "users: 1 (0 waiting for an agent, 0 silent)",
            "bytes: 2.0 KiB from port 1, 3 B from port 2",
            "since: 2023-11-14 22:13:20 UTC",
        ];
        assert_eq!(lines(&answer), expected);
    }

    #[test]
    fn a_private_mapping_has_two_sides() {
        let answer = json!({
            "id": "i", "private1": "Active", "private2": "Active", "type": "private", "port1": 1, "port2": 2,
            "maxconnectionsport1": 3, "heartbeatabsencethresholdport1": 0, "maxconnectionsport2": 4,
            "heartbeatabsencethresholdport2": 500, "agentsport1": 1, "freeport1": 1, "rejectedport1": 5,
            "agentsport2": 0, "freeport2": 0, "rejectedport2": 0,
        });
        let expected = [
            "id: i",
            "type: private",
            "port 1: 1, agents",
            "port 2: 2, agents",
            "limits: 3 connections of agents, which may be silent for ever",
            "limits 2: 4 connections of agents, which may be silent for 500 ms",
            "agents 1: 1 (1 free, 0 joined), 5 wrong passcodes",
            "agents 2: 0 (0 free, 0 joined)",
        ];
        assert_eq!(lines(&answer), expected);
    }

    #[test]
    fn a_direct_entry_has_an_id() {
        assert_eq!(lines(&json!({"id": "i", "timestamp": 1})), ["id: i", "type: direct"]);
    }
}
