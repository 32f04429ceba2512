//! One mapping as it stands in `configs.json`: flat, with the original's names in the original's order.

use crate::json::distinct;
use crate::mapping::options::KEYS;
use crate::mapping::{ABSENCE_MAX, AgentPort, Kind, Mapping, Options, absence_of_millis};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The fields. `port1` = 0 says that the entry is a direct one, an empty `passcodeport2` that the
/// mapping is public.
#[derive(Default, Serialize, Deserialize)]
#[serde(expecting = "an object with a mapping's fields")]
pub(super) struct Record<'a> {
    id: Cow<'a, str>,
    port1: u16,
    port2: u16,
    maxconnectionsport1: i64,
    maxconnectionsport2: i64,
    passcodeport1: Cow<'a, str>,
    passcodeport2: Cow<'a, str>,
    heartbeatabsencethresholdport1: i64,
    heartbeatabsencethresholdport2: i64,
    /// What the original does not know.
    #[serde(flatten, deserialize_with = "distinct")]
    options: Map<String, Value>,
}

impl<'a> Record<'a> {
    /// What is to be written for `mapping`.
    pub fn of(mapping: &'a Mapping) -> Self {
        let [port1, port2] = mapping.ports().unwrap_or_default();
        let [passcodeport1, passcodeport2] = mapping.passcodes().map(Cow::from);
        let id = Cow::from(&mapping.id);
        let bare = Record { id, port1, port2, passcodeport1, passcodeport2, ..Record::default() };
        let bare = Record { options: mapping.options.to_fields(), ..bare };
        match &mapping.kind {
            Kind::Public { agents, .. } => Record {
                maxconnectionsport1: agents.max_connections.into(),
                // The original wrote the one number into both fields.
                maxconnectionsport2: agents.max_connections.into(),
                heartbeatabsencethresholdport1: millis(agents),
                ..bare
            },
            Kind::Private { sides: [first, second] } => Record {
                maxconnectionsport1: first.max_connections.into(),
                maxconnectionsport2: second.max_connections.into(),
                heartbeatabsencethresholdport1: millis(first),
                heartbeatabsencethresholdport2: millis(second),
                ..bare
            },
            Kind::Direct { .. } => bare,
        }
    }
}

/// A record that was read and makes sense.
#[derive(Deserialize)]
#[serde(try_from = "Record")]
pub(super) struct Loaded(pub Mapping);

impl TryFrom<Record<'_>> for Loaded {
    type Error = String;

    fn try_from(record: Record<'_>) -> Result<Self, String> {
        let Record { port1, port2, passcodeport1, passcodeport2, .. } = record;
        let id = record.id.into_owned();
        if id.is_empty() {
            return Err("a mapping's id is empty".to_owned());
        }
        let options = options(&record.options).map_err(|why| format!("mapping {}: {why}", id.escape_debug()))?;
        let wrong = |what: String| Err(format!("mapping {}: {what}", id.escape_debug()));
        if passcodeport1.is_empty() {
            return wrong("passcodeport1 is empty".to_owned());
        }
        if port1 == 0 {
            return Ok(Self(Mapping { id, kind: Kind::Direct { passkey: Secret::new(passcodeport1) }, options }));
        }
        if port2 == 0 || port1 == port2 {
            return wrong(format!("port2 is {port2}, expected a port of its own"));
        }
        let first = agents(port1, passcodeport1, record.maxconnectionsport1, record.heartbeatabsencethresholdport1);
        if passcodeport2.is_empty() {
            return Ok(Self(Mapping { id, kind: Kind::Public { agents: first, users: port2 }, options }));
        }
        if let Some(key) = options.about_users() {
            return wrong(format!("the key {key:?} is about users, and a private pipe has none"));
        }
        let second = agents(port2, passcodeport2, record.maxconnectionsport2, record.heartbeatabsencethresholdport2);
        Ok(Self(Mapping { id, kind: Kind::Private { sides: [first, second] }, options }))
    }
}

/// A key that is not known here was written by a later version: without it the mapping would be another one.
fn options(fields: &Map<String, Value>) -> Result<Options, String> {
    if let Some(key) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("the key {key:?} is not known to this version"));
    }
    Options::from_fields(fields).map_err(|error| error.to_string())
}

/// The original stored whatever number it was given, -1 and 1215752191 included; such mappings stay,
/// with the nearest number that means something. A threshold below 0 never ended anything: never.
fn agents(port: u16, passcode: Cow<'_, str>, connections: i64, absence: i64) -> AgentPort {
    AgentPort {
        port,
        passcode: Secret::new(passcode),
        max_connections: connections.clamp(1, i64::from(u16::MAX)) as u16,
        absence: absence_of_millis(absence.clamp(0, ABSENCE_MAX as i64) as u64),
    }
}

fn millis(agents: &AgentPort) -> i64 {
    agents.absence.map_or(0, |absence| absence.as_millis() as i64)
}
