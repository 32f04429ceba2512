use super::*;
use crate::relay::api::refusal::Status;
use crate::relay::command::{AgentCounts, Traffic, UserCounts};
use crate::relay::counters::Ended;
use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

fn pipe(number: u64) -> PipeStatus {
    let agents = AgentCounts { authorized: 5, free: 2, joined: 3, unauthenticated: 1, rejected: number };
    PipeStatus {
        bound: [true, false],
        agents: [agents, AgentCounts { authorized: 1, ..AgentCounts::default() }],
        users: UserCounts { joined: 3, waiting: 2, silent: 1 },
        traffic: Traffic { port1_rx: 1 << 53, port2_rx: 7, discarded: 9, unsettled: 1 },
        since: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)),
    }
}

fn snapshot(pipes: Vec<(String, PipeStatus)>) -> Snapshot {
    let process = Process { open_fds: Some(7), cpu: Some(Duration::from_millis(1500)), ..Process::default() };
    let reloads = Reloads { was_taken_over: false, taken_over: 1_700_000_000_456 };
    let infos = pipes.iter().map(|(id, _)| Info(labels(&[("id", id), ("name", "")]))).collect();
    let answers = BTreeMap::from([(200, 5), (400, 1)]);
    let mut totals = Totals::default();
    totals.api_refusals.add(Status::MALFORMED);
    totals.counters.ended.add(Ended::Reset);
    totals.counters.durations.add(&DURATIONS, Duration::from_millis(700));
    let (mappings, available_ports, started) = (pipes.len(), 4, 1_700_000_000_123);
    Snapshot { mappings, available_ports, started, totals, pipes, infos, answers, reloads, process }
}

#[test]
fn names_say_what_kind_they_are_and_come_once() {
    let text = text(&snapshot(vec![("a".to_owned(), pipe(4))]));
    let lines = |what: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (helps, kinds) = (lines("# HELP "), lines("# TYPE "));
    assert!(helps.len() == kinds.len() && helps.len() > 30, "{text}");
    for ((name, help), (same, kind)) in helps.iter().zip(&kinds) {
        assert_eq!(name, same);
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        let expected = match name.as_str() {
            _ if name.ends_with("_total") => "counter",
            "iofog_connector_session_duration_seconds" | "iofog_connector_agent_wait_seconds" => "histogram",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
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
const SERIES: usize = 16;

#[test]
fn a_mapping_is_one_set_of_series() {
    let text = text(&snapshot(vec![("a".to_owned(), pipe(4)), ("b".to_owned(), pipe(5))]));
    let of_b: Vec<&str> = text.lines().filter(|line| line.contains("{id=\"b\"")).collect();
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
    assert_eq!(text.lines().filter(|line| line.contains("id=")).count(), 5000 * SERIES);
    assert!(text.capacity() < 10 << 20, "{} bytes", text.capacity());
}

#[test]
fn what_happened_is_counted_by_label() {
    let text = text(&snapshot(Vec::new()));
    for line in [
        "iofog_connector_api_requests_total{code=\"200\"} 5",
        "iofog_connector_api_requests_total{code=\"400\"} 2",
        "iofog_connector_sessions_ended_total{cause=\"reset\"} 1",
        "iofog_connector_sessions_ended_total{cause=\"stop\"} 0",
        "iofog_connector_session_duration_seconds_bucket{le=\"0.5\"} 0",
        "iofog_connector_session_duration_seconds_bucket{le=\"1\"} 1",
        "iofog_connector_session_duration_seconds_bucket{le=\"+Inf\"} 1",
        "iofog_connector_session_duration_seconds_sum 0.7",
        "iofog_connector_session_duration_seconds_count 1",
        "iofog_connector_last_reload_success 0",
        "iofog_connector_last_reload_success_timestamp_seconds 1700000000",
        "process_open_fds 7",
        "process_cpu_seconds_total 1.5",
        "process_start_time_seconds 1700000000.123",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("process_max_fds"), "what is not known is not told");
}

/// What the dashboard and the alert rules ask for is there.
#[test]
fn the_files_for_monitoring_name_metrics_that_exist() {
    let text = text(&snapshot(vec![("a".to_owned(), pipe(4))]));
    let files = [
        include_str!("../../../docs/monitoring/alerts.yml"),
        include_str!("../../../docs/monitoring/dashboard.json"),
        include_str!("../../../docs/monitoring.md"),
    ];
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for name in files.iter().flat_map(|file| file.split(|letter| !is_part(letter))) {
        let is_ours = name.strip_prefix(PREFIX).is_some_and(|rest| !rest.is_empty() && !rest.ends_with('_'));
        let is_there = ["{", " "].iter().any(|end| text.contains(&format!("\n{name}{end}")));
        // There is none without TLS.
        let is_known = is_there || name.ends_with("certificate_end_time_seconds");
        assert!(!is_ours || is_known, "there is no metric {name}");
    }
}
