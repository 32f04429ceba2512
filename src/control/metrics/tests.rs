use super::*;
use crate::relay::command::{AgentCounts, Traffic, UserCounts};
use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

fn pipe(number: u64) -> PipeStatus {
    let agents = AgentCounts { authorized: 5, free: 2, unauthenticated: 1, rejected: number };
    PipeStatus {
        bound: [true, false],
        agents: [agents, AgentCounts { authorized: 1, ..AgentCounts::default() }],
        users: UserCounts { joined: 3, waiting: 2, silent: 1 },
        traffic: Traffic { port1_rx: 1 << 53, port2_rx: 7, discarded: 9, unsettled: 1 },
        since: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)),
    }
}

fn snapshot(pipes: Vec<(String, PipeStatus)>) -> Snapshot {
    let info = |(id, _): &(String, _)| Info { id: id.clone(), name: format!("n-{id}"), kind: "public", ports: [1, 2] };
    let infos = pipes.iter().map(info).collect();
    let totals = Totals::default();
    Snapshot { mappings: pipes.len(), available_ports: 4, started: 1_700_000_000_123, totals, pipes, infos }
}

#[test]
fn names_say_what_kind_they_are_and_come_once() {
    let text = text(&snapshot(vec![("a".to_owned(), pipe(4))]));
    let lines = |what: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (helps, kinds) = (lines("# HELP iofog_connector_"), lines("# TYPE iofog_connector_"));
    assert!(helps.len() == kinds.len() && helps.len() > 30, "{text}");
    for ((name, help), (same, kind)) in helps.iter().zip(&kinds) {
        assert_eq!(name, same);
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" }, "{name}");
        assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
    }
    assert_eq!(helps.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), helps.len());
}

#[test]
fn keys_of_status_come_once() {
    fn keys<T>(figures: &'static [Figure<T>]) -> impl Iterator<Item = &'static str> {
        figures.iter().map(|figure| figure.key)
    }
    let keys: Vec<_> = keys(DAEMON).chain(keys(AGENTS)).chain(keys(USERS)).chain(keys(TRAFFIC)).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

/// Series of one mapping.
const SERIES: usize = 13;

#[test]
fn a_mapping_is_one_set_of_series() {
    let text = text(&snapshot(vec![("a".to_owned(), pipe(4)), ("b".to_owned(), pipe(5))]));
    let of_b: Vec<&str> = text.lines().filter(|line| line.contains("{id=\"b\"}")).collect();
    assert_eq!(of_b.len(), SERIES);
    for (name, value) in [
        ("start_time_seconds", "1700000000"),
        ("ports_bound", "1"),
        ("agents", "6"),
        ("agents_free", "2"),
        ("users", "6"),
        ("port1_received_bytes_total", "9007199254740992"),
        ("rejected_passcodes_total", "5"),
    ] {
        let expected = format!("iofog_connector_mapping_{name}{{id=\"b\"}} {value}");
        assert!(of_b.contains(&expected.as_str()), "{expected} is not among {of_b:#?}");
    }
    let info = r#"iofog_connector_mapping_info{id="b",name="n-b",type="public",port1="1",port2="2"} 1"#;
    assert!(text.lines().any(|line| line == info), "{text}");
    assert!(text.contains("\niofog_connector_start_time_seconds 1700000000\n"), "{text}");
}

#[test]
fn an_id_cannot_end_its_label() {
    let text = text(&snapshot(vec![("a\"} 1\nb\\".to_owned(), pipe(0))]));
    assert!(text.contains(r#"mapping_users{id="a\"} 1\nb\\"} 6"#), "{text}");
}

#[test]
fn five_thousand_mappings_are_a_few_megabytes() {
    let pipes = (0..5000).map(|number| (uuid::Uuid::from_u128(number).to_string(), pipe(number as u64))).collect();
    let text = text(&snapshot(pipes));
    assert_eq!(text.lines().filter(|line| line.contains("id=")).count(), 5000 * (SERIES + 1));
    assert!(text.capacity() < 10 << 20, "{} bytes", text.capacity());
}
