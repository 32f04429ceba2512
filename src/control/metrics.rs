//! `GET /metrics`: the daemon in numbers, in Prometheus' text format (version 0.0.4).
//!
//! Every metric that is always there has its line in one of the two tables below. Those of a mapping carry its id as their only label, so
//! that a mapping is one set of series; ids are no secrets. With thousands of mappings the text is megabytes long:
//! it is built in one pass, and sent by a thread of its own (see [`crate::control`]).

use crate::failure::millis;
use crate::limits::API_CONNECTIONS;
use crate::relay::command::{AgentCounts, PipeStatus, Totals};
use std::fmt::Write;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the numbers are taken from.
pub(super) struct Snapshot {
    pub mappings: usize,
    pub available_ports: usize,
    /// When the daemon started, milliseconds since the epoch.
    pub started: u64,
    pub totals: Totals,
    /// The open mappings, by id.
    pub pipes: Vec<(String, PipeStatus)>,
}

/// One metric: what it is called, what it means, and where its number comes from.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: fn(&T) -> u64,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Only ever grows while the daemon runs. Its name ends in `_total`.
    Counter,
    Gauge,
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    Metric { name, help, kind: Kind::Counter, value }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    Metric { name, help, kind: Kind::Gauge, value }
}

const DAEMON: &[Metric<Snapshot>] = &[
    gauge("start_time_seconds", "When the daemon started, in seconds since the epoch.", |s| s.started / 1000),
    gauge("mappings", "Mappings and direct entries that exist.", |s| s.mappings as u64),
    gauge("mappings_inactive", "Mappings of which a port could not be bound.", |s| s.totals.inactive as u64),
    gauge("ports_available", "Ports that new mappings could have.", |s| s.available_ports as u64),
    gauge("connections", "TCP connections, those of the API not counted.", |s| s.totals.connections as u64),
    gauge("connections_limit", "TCP connections at most, those of the API not counted.", |s| {
        s.totals.most_connections as u64
    }),
    gauge("api_connections", "TCP connections of Controllers.", |s| s.totals.controllers as u64),
    gauge("api_connections_limit", "TCP connections of Controllers at most.", |_| API_CONNECTIONS as u64),
    gauge("buffers", "Relay buffers in use.", |s| s.totals.buffers as u64),
    gauge("buffers_limit", "Relay buffers that there are.", |s| s.totals.most_buffers as u64),
    counter("accept_pauses_total", "How often no more connections could be accepted.", |s| s.totals.pauses),
    gauge("agents", "Authorized agent connections.", |s| s.totals.agents.authorized as u64),
    gauge("users", "User connections.", |s| s.totals.users.all() as u64),
    gauge("rejecting", "Rejected connections that are still to be closed.", |s| s.totals.rejecting as u64),
    gauge("broker_peers", "Connections at the broker.", |s| s.totals.peers as u64),
    gauge("closing", "Connections that only get what is left for them.", |s| s.totals.closing as u64),
    counter("port1_received_bytes_total", "Payload that came in at first ports and was relayed.", |s| {
        s.totals.traffic.forth
    }),
    counter("port2_received_bytes_total", "Payload that came in at second ports and was relayed.", |s| {
        s.totals.traffic.back
    }),
    counter("discarded_bytes_total", "Payload of agents that were joined to nobody.", |s| s.totals.traffic.discarded),
    counter("unsettled_agents_total", "Agents that sent payload while joined to nobody.", |s| {
        s.totals.traffic.unsettled
    }),
    counter("rejected_passcodes_total", "Connections closed for a wrong passcode.", |s| s.totals.agents.rejected),
];

const MAPPING: &[Metric<PipeStatus>] = &[
    gauge("mapping_start_time_seconds", "When the mapping was opened, in seconds since the epoch.", |p| {
        p.since.map_or(0, millis) / 1000
    }),
    gauge("mapping_ports_bound", "How many of its two ports are bound.", |p| p.bound.into_iter().map(u64::from).sum()),
    gauge("mapping_agents", "Authorized agent connections.", |p| agents(p).authorized as u64),
    gauge("mapping_agents_free", "Authorized agent connections that are joined to nobody.", |p| agents(p).free as u64),
    gauge("mapping_agents_unauthorized", "Connections at agent ports that have not shown a passcode yet.", |p| {
        agents(p).strangers as u64
    }),
    gauge("mapping_users", "User connections.", |p| p.users.all() as u64),
    gauge("mapping_users_waiting", "Users that wait for a free agent connection.", |p| p.users.waiting as u64),
    gauge("mapping_users_silent", "Users that have not sent a byte yet.", |p| p.users.silent as u64),
    counter("mapping_port1_received_bytes_total", "Payload that came in at its first port and was relayed.", |p| {
        p.traffic.forth
    }),
    counter("mapping_port2_received_bytes_total", "Payload that came in at its second port and was relayed.", |p| {
        p.traffic.back
    }),
    counter("mapping_discarded_bytes_total", "Payload of agents that were joined to nobody.", |p| p.traffic.discarded),
    counter("mapping_unsettled_agents_total", "Agents that sent payload while joined to nobody.", |p| {
        p.traffic.unsettled
    }),
    counter("mapping_rejected_passcodes_total", "Connections closed for a wrong passcode.", |p| agents(p).rejected),
];

/// What all names begin with.
const PREFIX: &str = "iofog_connector_";
/// Bytes of a line of a mapping, about.
const LINE: usize = 100;

/// Of both ports together.
fn agents(pipe: &PipeStatus) -> AgentCounts {
    let [one, two] = pipe.agents;
    one.plus(two)
}

/// The whole text.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let labels: Vec<String> = snapshot.pipes.iter().map(|(id, _)| label("id", id)).collect();
    let mut text = String::with_capacity((8 + snapshot.pipes.len() * MAPPING.len()) * LINE);
    head(&mut text, "build_info", "Always 1; the label tells the version.", Kind::Gauge);
    line(&mut text, "build_info", &label("version", env!("CARGO_PKG_VERSION")), 1);
    for Metric { name, help, kind, value } in DAEMON {
        head(&mut text, name, help, *kind);
        line(&mut text, name, "", value(snapshot));
    }
    if let Some(expiry) = snapshot.totals.expiry {
        head(
            &mut text,
            "certificate_end_time_seconds",
            "When the certificate ends, in seconds since the epoch.",
            Kind::Gauge,
        );
        line(&mut text, "certificate_end_time_seconds", "", expiry.timestamp());
    }
    for Metric { name, help, kind, value } in MAPPING {
        head(&mut text, name, help, *kind);
        for ((_, pipe), label) in snapshot.pipes.iter().zip(&labels) {
            line(&mut text, name, label, value(pipe));
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str, kind: Kind) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    // Writing to a String cannot fail; here and below.
    let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{PREFIX}{name}{labels} {value}");
}

/// `{name="value"}`, with what would end the value escaped: `configs.json` may hold any text as an id.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

#[cfg(test)]
mod tests;
