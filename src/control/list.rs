//! `mapping/list`, ours: what mappings there are, for the command line. Without passcodes: those are told once,
//! to whoever adds the mapping.

use super::answer::Answer;
use super::registry::Registry;
use super::status::state;
use crate::failure::timestamp;
use crate::mapping::Kind;
use crate::relay::command::Gone;
use serde::Serialize;

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

/// The ports, and whether each is bound.
#[derive(Serialize)]
struct Ports {
    port1: u16,
    state1: &'static str,
    port2: u16,
    state2: &'static str,
}

/// All mappings, by id.
pub(super) fn list(registry: &Registry) -> Result<Answer, Gone> {
    let mut mappings = Vec::with_capacity(registry.len());
    for mapping in registry.mappings() {
        let ports = match mapping.ports() {
            None => None,
            Some([port1, port2]) => {
                let [state1, state2] = registry.pipe_status(&mapping.id)?.bound.map(state);
                Some(Ports { port1, state1, port2, state2 })
            }
        };
        let r#type = match mapping.kind {
            Kind::Public { .. } => "public",
            Kind::Private { .. } => "private",
            Kind::Direct { .. } => "direct",
        };
        mappings.push(Entry { id: &mapping.id, r#type, ports });
    }
    Ok(Answer::ok(&List { status: "ok", mappings, timestamp: timestamp() }))
}
