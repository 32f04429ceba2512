//! What a mapping is: an id and the two ports, limits and passcodes that go with it.
//!
//! The control thread owns the list of mappings; the relay gets a copy of each one it opens.

mod field;
pub mod options;
mod request;

pub use field::FieldError;
pub use options::Options;
pub use request::{ABSENCE_MAX, Request, Terms, Wanted, absence_of_millis};

use crate::secret::Secret;
use std::time::Duration;

/// One mapping, as opened by a Controller (docs/protocol.md, "Words").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Random UUID version 4, lower case.
    pub id: String,
    pub kind: Kind,
    pub options: Options,
}

/// The three sorts of mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Users on port2 (`users`) are joined to agents on port1 (`agents`).
    Public { agents: AgentPort, users: u16 },
    /// Agents on both ports.
    Private { sides: [AgentPort; 2] },
    /// Two peers that the broker introduces to each other; no ports of its own.
    Direct { passkey: Secret },
}

/// A port that agents connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPort {
    pub port: u16,
    pub passcode: Secret,
    /// Authorized connections at most.
    pub max_connections: u16,
    /// An agent that is silent for so long is closed; `None` = never.
    pub absence: Option<Duration>,
}

impl Kind {
    /// The sort's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Public { .. } => "public",
            Self::Private { .. } => "private",
            Self::Direct { .. } => "direct",
        }
    }
}

impl Mapping {
    /// A new mapping on these two ports, with a new id and new passcodes.
    pub fn new(request: &Request, [port1, port2]: [u16; 2]) -> Self {
        let agents = |terms: &Terms, port| AgentPort {
            port,
            passcode: Secret::random(),
            max_connections: terms.max_connections,
            absence: terms.absence,
        };
        let kind = match &request.kind {
            Wanted::Public(terms) => Kind::Public { agents: agents(terms, port1), users: port2 },
            Wanted::Private([first, second]) => Kind::Private { sides: [agents(first, port1), agents(second, port2)] },
        };
        Self { id: new_id(), kind, options: request.options.clone() }
    }

    /// A new direct entry, with a new id and a new passkey.
    pub fn new_direct() -> Self {
        Self { id: new_id(), kind: Kind::Direct { passkey: Secret::random() }, options: Options::default() }
    }

    /// What people call it.
    pub fn name(&self) -> Option<&str> {
        self.options.name.as_deref()
    }

    /// The passcodes of port1 and port2, or the passkey; empty where there is none.
    pub fn passcodes(&self) -> [&str; 2] {
        match &self.kind {
            Kind::Public { agents, .. } => [agents.passcode.expose(), ""],
            Kind::Private { sides: [first, second] } => [first.passcode.expose(), second.passcode.expose()],
            Kind::Direct { passkey } => [passkey.expose(), ""],
        }
    }

    /// Its id, and its name if it has one.
    pub fn label(&self) -> String {
        self.options.label(&self.id)
    }

    /// port1 and port2; none for a direct entry.
    pub fn ports(&self) -> Option<[u16; 2]> {
        match &self.kind {
            Kind::Public { agents, users } => Some([agents.port, *users]),
            Kind::Private { sides: [first, second] } => Some([first.port, second.port]),
            Kind::Direct { .. } => None,
        }
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
