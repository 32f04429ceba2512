//! `mapping/list`, ours: what mappings there are, for the command line. Without passcodes: those are told once,
//! to whoever adds the mapping.

use super::answer::Answer;
use super::registry::Registry;
use super::status::state;
use crate::failure::timestamp;
use crate::mapping::{Kind, Mapping};
use crate::relay::command::{Gone, PipeStatus};
use serde::Serialize;
use std::collections::HashMap;

/// The answer.
#[derive(Serialize)]
struct List<'a> {
    status: &'static str,
    mappings: Vec<Entry<'a>>,
    timestamp: u64,
}

/// One mapping. A direct entry has no ports.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    r#type: &'static str,
    #[serde(flatten)]
    ports: Option<Ports>,
}

/// The ports, whether each is bound, and who is connected.
#[derive(Serialize)]
struct Ports {
    port1: u16,
    state1: &'static str,
    port2: u16,
    state2: &'static str,
    /// Authorized, at both ports.
    agents: usize,
    users: usize,
}

/// All mappings, by id.
pub(super) fn list(registry: &Registry) -> Result<Answer, Gone> {
    let statuses: HashMap<String, PipeStatus> = registry.pipe_statuses()?.into_iter().collect();
    let closed = PipeStatus::default();
    let ports = |mapping: &Mapping| {
        let status = statuses.get(&mapping.id).unwrap_or(&closed);
        mapping.ports().map(|ports| Ports::new(ports, status))
    };
    let mappings =
        registry.mappings().map(|mapping| Entry { id: &mapping.id, r#type: type_of(mapping), ports: ports(mapping) });
    Ok(Answer::ok(&List { status: "ok", mappings: mappings.collect(), timestamp: timestamp() }))
}

impl Ports {
    fn new([port1, port2]: [u16; 2], PipeStatus { bound, agents, users, .. }: &PipeStatus) -> Self {
        let [state1, state2] = bound.map(state);
        let agents = agents.iter().map(|agents| agents.authorized).sum();
        Self { port1, state1, port2, state2, agents, users: users.all() }
    }
}

fn type_of(mapping: &Mapping) -> &'static str {
    match mapping.kind {
        Kind::Public { .. } => "public",
        Kind::Private { .. } => "private",
        Kind::Direct { .. } => "direct",
    }
}
