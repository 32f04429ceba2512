//! `GET /metrics`: the daemon in numbers, in Prometheus' text format (version 0.0.4).
//!
//! What a label may be is bounded: those of a mapping carry its id, so that it is one set of series; all others have a few
//! fixed values, and belong to the whole daemon. Ids are no secrets. With thousands of mappings the text is megabytes
//! long: it is built in one pass, and sent by a thread of its own (see [`crate::control`]).

use super::figures::{AGENTS, DAEMON, Figure, TRAFFIC, USERS};
use super::reloads::Reloads;
use crate::clock::millis;
use crate::logging::{self, LOGS};
use crate::mapping::Mapping;
use crate::prometheus::process::{Process, of_process};
use crate::prometheus::{block, head, labels};
use crate::relay::command::{PipeStatus, Totals};
use crate::relay::counters::{Counts, DURATIONS, Histogram, Label, WAITS};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the numbers are taken from.
pub(super) struct Snapshot {
    pub mappings: usize,
    pub available_ports: usize,
    /// When the daemon started, milliseconds since the epoch.
    pub started: u64,
    pub totals: Totals,
    /// The open mappings, by id.
    pub pipes: Vec<(String, PipeStatus)>,
    /// What the mappings are, those that are not open included.
    pub infos: Vec<Info>,
    /// API requests that the control thread has answered, by status.
    pub answers: BTreeMap<u16, u64>,
    pub reloads: Reloads,
    pub process: Process,
}

/// What a mapping is: the labels of `mapping_info`.
pub(super) struct Info(String);

impl Info {
    pub fn of(mapping: &Mapping) -> Self {
        let [port1, port2] = mapping.ports().map_or_else(Default::default, |ports| ports.map(|port| port.to_string()));
        Self(labels(&[
            ("id", &mapping.id),
            ("name", mapping.options.name.as_deref().unwrap_or_default()),
            ("type", mapping.kind.name()),
            ("port1", &port1),
            ("port2", &port2),
        ]))
    }
}

/// What our own names begin with.
const PREFIX: &str = "iofog_connector_";
/// Bytes of a line of a mapping, and how many lines a mapping has, about.
const MAPPING: usize = 100 * 17;

/// The whole text.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let Snapshot { mappings, available_ports, started, totals, .. } = snapshot;
    let mut text = String::with_capacity(8 * 1024 + snapshot.pipes.len() * MAPPING);
    let version = [(labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1)];
    family(&mut text, "build_info", "Always 1; the label tells the version.", version);
    let mut single = |name: &str, help, value| family(&mut text, name, help, [("", value)]);
    single("start_time_seconds", "When the daemon started, in seconds since the epoch.", started / 1000);
    single("mappings", "Mappings and direct entries that exist.", *mappings as u64);
    single("ports_available", "Ports that new mappings could have.", *available_ports as u64);
    if let Some(expiry) = totals.expiry {
        let help = "When the certificate ends, in seconds since the epoch.";
        single("certificate_end_time_seconds", help, expiry.timestamp());
    }
    let Reloads { was_taken_over, taken_over } = snapshot.reloads;
    let help = "1 if the settings were taken over at the last reload, or at the start; 0 if something was wrong.";
    single("last_reload_success", help, was_taken_over.into());
    let help = "When settings were taken over last, in seconds since the epoch.";
    single("last_reload_success_timestamp_seconds", help, taken_over / 1000);
    of_daemon(&mut text, DAEMON, totals);
    of_daemon(&mut text, AGENTS, &totals.agents);
    of_daemon(&mut text, USERS, &totals.users);
    of_daemon(&mut text, TRAFFIC, &totals.traffic);
    let traffic = totals.traffic;
    let sides = [("port1", traffic.port1_rx), ("port2", traffic.port2_rx)];
    family(&mut text, "received_bytes_total", RECEIVED, sides.map(|(side, bytes)| (labels(&[("side", side)]), bytes)));
    of_events(&mut text, snapshot);
    of_process(&mut text, &snapshot.process, *started);
    of_mappings(&mut text, snapshot);
    text
}

const RECEIVED: &str = "Payload that came in and was relayed, by the port that it came in at.";

/// What has happened since the start.
fn of_events(text: &mut String, Snapshot { totals, answers, .. }: &Snapshot) {
    let counters = &totals.counters;
    family(text, "sessions_total", "Sessions that have begun.", [("", counters.sessions)]);
    counts(text, "sessions_ended_total", "Sessions that have ended, by cause.", "cause", &counters.ended);
    let help = "Time from the beginning of a session to its end.";
    histogram(text, "session_duration_seconds", help, &DURATIONS, &counters.durations);
    let help = "Time from a user's first byte until it got an agent.";
    histogram(text, "agent_wait_seconds", help, &WAITS, &counters.waits);
    counts(text, "users_refused_total", "Users that got no agent, by reason.", "reason", &counters.refused);
    let help = "Agent connections that have been authorized.";
    family(text, "agents_authorized_total", help, [("", counters.agents_authorized)]);
    let help = "Authorized agent connections that are gone, by reason.";
    counts(text, "agents_lost_total", help, "reason", &counters.agents_lost);
    let help = "TLS handshakes that have failed, by the kind of port.";
    counts(text, "tls_handshake_failures_total", help, "port", &counters.handshake_failures);
    let help = "Connections and passcodes that a rate limit has delayed or rejected, by limit.";
    counts(text, "rate_limited_total", help, "limit", &counters.rate_limited);
    let mut answers = answers.clone();
    for (code, count) in totals.api_refusals.iter().filter(|(_, count)| *count > 0) {
        *answers.entry(code.parse().unwrap_or_default()).or_default() += count;
    }
    let series = answers.into_iter().map(|(code, count)| (labels(&[("code", &code.to_string())]), count));
    family(text, "api_requests_total", "API requests, by the HTTP status of their answer.", series);
    let lost = LOGS.map(|(which, name)| (labels(&[("log", name)]), logging::lost(which) as u64));
    family(text, "log_lines_lost_total", "Lines of a log that could not be written, by log.", lost);
}

fn of_mappings(text: &mut String, Snapshot { pipes, infos, .. }: &Snapshot) {
    let help = "Always 1; the labels tell what the mapping is.";
    family(text, "mapping_info", help, infos.iter().map(|Info(labels)| (labels, 1)));
    let ids: Vec<String> = pipes.iter().map(|(id, _)| labels(&[("id", id)])).collect();
    let mut each = |name: &str, help, value: &dyn Fn(&PipeStatus) -> u64| {
        family(text, name, help, ids.iter().zip(pipes).map(|(labels, (_, pipe))| (labels, value(pipe))));
    };
    each("mapping_start_time_seconds", "When the mapping was opened, in seconds since the epoch.", &|pipe| {
        pipe.since.map_or(0, millis) / 1000
    });
    each("mapping_ports_bound", "How many of its two ports are bound.", &|pipe| {
        pipe.bound.into_iter().map(u64::from).sum()
    });
    for Figure { metric, help, value, .. } in AGENTS {
        each(&format!("mapping_{metric}"), help, &|pipe| pipe.agents.iter().map(value).sum());
    }
    for Figure { metric, help, value, .. } in USERS {
        each(&format!("mapping_{metric}"), help, &|pipe| value(&pipe.users));
    }
    for Figure { metric, help, value, .. } in TRAFFIC {
        each(&format!("mapping_{metric}"), help, &|pipe| value(&pipe.traffic));
    }
    let received = pipes.iter().flat_map(|(id, pipe)| {
        let sides = [("port1", pipe.traffic.port1_rx), ("port2", pipe.traffic.port2_rx)];
        sides.map(|(side, bytes)| (labels(&[("id", id), ("side", side)]), bytes))
    });
    family(text, "mapping_received_bytes_total", RECEIVED, received);
}

fn of_daemon<T>(text: &mut String, figures: &[Figure<T>], from: &T) {
    figures.iter().for_each(|figure| family(text, figure.metric, figure.help, [("", (figure.value)(from))]));
}

/// A counter for each value of a label, also where it is zero: a rate needs a beginning.
fn counts<L: Label>(text: &mut String, name: &str, help: &str, label: &str, counts: &Counts<L>) {
    family(text, name, help, counts.iter().map(|(word, count)| (labels(&[(label, word)]), count)));
}

fn histogram<const N: usize>(text: &mut String, name: &str, help: &str, bounds: &[u64; N], from: &Histogram<N>) {
    head(text, PREFIX, name, help, "histogram");
    let bounds = bounds.iter().map(|&bound| (bound as f64 / 1000.0).to_string()).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(from.cumulative()) {
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(text, "{PREFIX}{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(text, "{PREFIX}{name}_sum {}\n{PREFIX}{name}_count {}", from.sum.as_secs_f64(), from.count());
}

/// All series of one metric of ours: their labels and numbers.
fn family<L: AsRef<str>>(text: &mut String, name: &str, help: &str, series: impl IntoIterator<Item = (L, u64)>) {
    block(text, PREFIX, name, help, series);
}

#[cfg(test)]
mod tests;
