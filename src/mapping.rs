//! What a mapping is: an id and the two ports, limits and passcodes that go with it.
//!
//! The control thread owns the list of mappings; the relay gets a copy of each one it opens.

use crate::secret::Secret;
use std::time::Duration;

/// One mapping, as opened by a Controller (docs/protocol.md, "Words").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Random UUID version 4, lower case.
    pub id: String,
    pub kind: Kind,
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
