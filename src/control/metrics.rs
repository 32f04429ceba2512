//! `GET /metrics`: the daemon in numbers, in Prometheus' text format (version 0.0.4).
//!
//! Those of a mapping carry its id as their only label, so that a mapping is one set of series; ids are no secrets. What
//! else is to be known of it (its name, say) is in the labels of one of them, to be joined by id. With
//! thousands of mappings the text is megabytes long: it is built in one pass, and sent by a thread of its own (see
//! [`crate::control`]).

use super::figures::{AGENTS, DAEMON, Figure, TRAFFIC, USERS};
use crate::failure::millis;
use crate::mapping::Mapping;
use crate::relay::command::{PipeStatus, Totals};
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
    /// All mappings with ports.
    pub infos: Vec<Info>,
}

/// What a mapping is, for who knows it by another name than its id.
pub(super) struct Info {
    pub id: String,
    /// Empty if it has none.
    pub name: String,
    pub kind: &'static str,
    pub ports: [u16; 2],
}

impl Info {
    /// `None`: it has no ports.
    pub fn of(mapping: &Mapping) -> Option<Self> {
        let name = mapping.name().unwrap_or_default().to_owned();
        Some(Self { id: mapping.id.clone(), name, kind: mapping.kind.name(), ports: mapping.ports()? })
    }

    fn labels(&self) -> String {
        let Self { id, name, kind, ports: [port1, port2] } = self;
        let labels = [("id", escaped(id)), ("name", escaped(name)), ("type", (*kind).to_owned())];
        let labels = labels.map(|(name, value)| format!("{name}=\"{value}\"")).join(",");
        format!("{{{labels},port1=\"{port1}\",port2=\"{port2}\"}}")
    }
}

/// What all names begin with.
const PREFIX: &str = "iofog_connector_";
/// Bytes of a line of a mapping, and how many lines a mapping has, about.
const MAPPING: usize = 100 * 14;

/// The whole text.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let Snapshot { mappings, available_ports, started, totals, pipes, infos } = snapshot;
    let mut text = String::with_capacity((1 + pipes.len()) * MAPPING);
    let version = [(label("version", env!("CARGO_PKG_VERSION")), 1)];
    family(&mut text, "build_info", "Always 1; the label tells the version.", version);
    let mut single = |name: &str, help, value| family(&mut text, name, help, [("", value)]);
    single("start_time_seconds", "When the daemon started, in seconds since the epoch.", started / 1000);
    single("mappings", "Mappings and direct entries that exist.", *mappings as u64);
    single("ports_available", "Ports that new mappings could have.", *available_ports as u64);
    if let Some(expiry) = totals.expiry {
        let help = "When the certificate ends, in seconds since the epoch.";
        single("certificate_end_time_seconds", help, expiry.timestamp());
    }
    of_daemon(&mut text, DAEMON, totals);
    of_daemon(&mut text, AGENTS, &totals.agents);
    of_daemon(&mut text, USERS, &totals.users);
    of_daemon(&mut text, TRAFFIC, &totals.traffic);
    let infos = infos.iter().map(|info| (info.labels(), 1));
    family(&mut text, "mapping_info", "Always 1; the labels tell name, type and ports of the mapping.", infos);
    let labels: Vec<String> = pipes.iter().map(|(id, _)| label("id", id)).collect();
    let mut each = |name: &str, help, value: &dyn Fn(&PipeStatus) -> u64| {
        family(&mut text, name, help, labels.iter().zip(pipes).map(|(label, (_, pipe))| (label, value(pipe))));
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
    text
}

fn of_daemon<T>(text: &mut String, figures: &[Figure<T>], from: &T) {
    figures.iter().for_each(|figure| family(text, figure.metric, figure.help, [("", (figure.value)(from))]));
}

/// All series of one metric: their labels and numbers.
fn family<L: AsRef<str>>(text: &mut String, name: &str, help: &str, series: impl IntoIterator<Item = (L, u64)>) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    // Writing to a String cannot fail; here and below.
    let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
    for (labels, value) in series {
        let _ = writeln!(text, "{PREFIX}{name}{} {value}", labels.as_ref());
    }
}

/// `{name="value"}`, with what would end the value escaped: `configs.json` may hold any text as an id.
fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{}\"}}", escaped(value))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
