//! What `status` and `mapping/list` answer: the original's fields in the original's order, and ours behind them
//! (docs/protocol.md, section 3, "Status").
//!
//! Names are in lower case, as in a mapping's JSON. What belongs to one port of a private mapping ends in `port1` or
//! `port2`, as there.

use super::answer::{Answer, Fields};
use super::figures::{AGENTS, DAEMON, Figure, TRAFFIC, USERS};
use super::registry::Registry;
use crate::clock::{millis, timestamp};
use crate::mapping::{Kind, Mapping, Options};
use crate::relay::command::{Gone, PipeStatus};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// The whole daemon.
pub(super) fn of_all(registry: &Registry, uptime: Duration) -> Result<Fields, Gone> {
    let totals = registry.relay.totals()?;
    let mut fields = Fields::from([
        ("id", "all".into()),
        ("timestamp", timestamp().into()),
        ("status", if registry.relay.is_stopping() { "stopping" } else { "running" }.into()),
        ("mappings", registry.mappings().len().into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("availablePorts", registry.ports.available().into()),
        ("uptime", (uptime.as_millis() as u64).into()),
    ]);
    add(&mut fields, DAEMON, &totals);
    add(&mut fields, AGENTS, &totals.agents);
    fields.add("joined", totals.agents.joined);
    add(&mut fields, USERS, &totals.users);
    add(&mut fields, TRAFFIC, &totals.traffic);
    let [rate1, rate2] = totals.rates;
    fields.add("rateport1", rate1);
    fields.add("rateport2", rate2);
    if let Some(expiry) = totals.expiry {
        fields.add("certificateend", expiry.timestamp() * 1000);
    }
    Ok(fields)
}

/// One mapping. A direct entry has no ports.
pub(super) fn of_one(registry: &Registry, Mapping { id, kind, options }: &Mapping) -> Result<Fields, Gone> {
    let status = registry.relay.status(id)?.unwrap_or_default();
    let ([bound1, bound2], [one, two]) = (status.bound.map(state), &status.agents);
    let mut fields = Fields::from([("id", id.as_str().into()), ("timestamp", timestamp().into())]);
    match kind {
        Kind::Public { .. } => {
            fields.add("public", bound2);
            fields.add("private", bound1);
            add(&mut fields, AGENTS, one);
        }
        Kind::Private { .. } => {
            fields.add("private1", bound1);
            fields.add("private2", bound2);
            for Figure { key, value, .. } in AGENTS {
                fields.add(format!("{key}port1"), value(one));
                fields.add(format!("{key}port2"), value(two));
            }
        }
        Kind::Direct { .. } => return Ok(fields),
    }
    // Those of a private mapping come in pairs.
    fields.add("joined", one.joined);
    if let Kind::Public { .. } = kind {
        add(&mut fields, USERS, &status.users);
    }
    add(&mut fields, TRAFFIC, &status.traffic);
    if let Some(since) = status.since {
        fields.add("since", millis(since));
    }
    add_terms(&mut fields, kind);
    add_options(&mut fields, options);
    Ok(fields)
}

/// What the mapping was added with, in the words of that request.
fn add_terms(fields: &mut Fields, kind: &Kind) {
    let (agents, ports) = match kind {
        Kind::Public { agents, users } => (vec![("", agents)], [agents.port, *users]),
        Kind::Private { sides: [one, two] } => (vec![("port1", one), ("port2", two)], [one.port, two.port]),
        Kind::Direct { .. } => return,
    };
    fields.add("type", kind.name());
    fields.add("port1", ports[0]);
    fields.add("port2", ports[1]);
    for (port, agents) in agents {
        fields.add(format!("maxconnections{port}"), agents.max_connections);
        let absence = agents.absence.map_or(0, |absence| absence.as_millis() as u64);
        fields.add(format!("heartbeatabsencethreshold{port}"), absence);
    }
}

/// In an object of their own: `users` is a number beside it. Without any there is none.
fn add_options(fields: &mut Fields, options: &Options) {
    let options = options.to_fields();
    if !options.is_empty() {
        fields.add("options", options);
    }
}

fn add<T>(fields: &mut Fields, figures: &[Figure<T>], from: &T) {
    figures.iter().for_each(|figure| fields.add(figure.key, (figure.value)(from)));
}

/// `mapping/list`, ours: all mappings, by id, for the command line. Without passcodes: those are told once, to whoever
/// adds the mapping.
pub(super) fn list(registry: &Registry) -> Result<Answer, Gone> {
    #[derive(Serialize)]
    struct List {
        status: &'static str,
        mappings: Vec<Fields>,
        timestamp: u64,
    }
    let statuses: HashMap<String, PipeStatus> = registry.relay.status_of_all()?.into_iter().collect();
    let closed = PipeStatus::default();
    let entry = |mapping: &Mapping| {
        let mut entry = Fields::from([("id", mapping.id.as_str().into()), ("type", mapping.kind.name().into())]);
        if let Some([port1, port2]) = mapping.ports() {
            let PipeStatus { bound, agents, users, .. } = statuses.get(&mapping.id).unwrap_or(&closed);
            let [state1, state2] = bound.map(state);
            entry.add("port1", port1);
            entry.add("state1", state1);
            entry.add("port2", port2);
            entry.add("state2", state2);
            entry.add("agents", agents.iter().map(|agents| agents.authorized).sum::<usize>());
            entry.add("users", users.all());
        }
        add_options(&mut entry, &mapping.options);
        entry
    };
    let mappings = registry.mappings().values().map(entry).collect();
    Ok(Answer::of(&List { status: "ok", mappings, timestamp: timestamp() }))
}

/// Whether a port is bound, in the words of the original.
fn state(is_bound: bool) -> &'static str {
    if is_bound { "Active" } else { "Inactive" }
}
