//! What a connection of the daemon is doing, and until when it may.
//!
//! Each connection is in exactly one state, and a state carries what belongs to it and nothing else: who leaves
//! a state gives its ticket back. Each state has a deadline, or a reason to have none.

use super::broker::Peer;
use super::front::{Api, Backend};
use super::pipe::{PipeKey, Place};
use super::queue::Ticket;
use crate::limits::OWED_BEATS;
use crate::net::closing::Closing;
use crate::net::link::Link;
use crate::net::pump::End;
use crate::net::reactor::Key;
use std::time::{Duration, Instant};

/// The states of a connection.
pub(super) enum State {
    /// At an agent port, its address braked: not looked at before `until`.
    Braked { place: Place, ticket: Ticket, until: Instant },
    /// At an agent port: TLS handshake and passcode are to come.
    Greeting { place: Place, ticket: Ticket, until: Instant, offered: Vec<u8> },
    /// An authorized agent that is joined to nobody.
    Free { agent: Agent, ticket: Ticket },
    /// An authorized agent that is joined to `peer`: a user, or an agent of the other side.
    Joined { agent: Agent, peer: Key },
    /// A user that has not sent a byte.
    Silent { pipe: PipeKey, ticket: Ticket, until: Instant },
    /// A user that has, while no agent is free. Its bytes stay in the kernel.
    Waiting { pipe: PipeKey, ticket: Ticket, until: Instant },
    /// A user that has an agent.
    Served { pipe: PipeKey, agent: Key },
    /// A user that will send no more, and may still be answered. `since`: the agent's last payload.
    HalfClosed { pipe: PipeKey, agent: Key, since: Instant },
    /// Done for; what is held still goes out.
    Closing {
        closing: Closing,
        /// The mapping that it goes with.
        pipe: Option<PipeKey>,
    },
    /// A Controller's connection.
    Api(Box<Api>),
    /// Its other half: our own connection to the HTTP parser.
    Backend(Backend),
    /// At the broker's port.
    Peer(Peer),
}

/// An authorized agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) place: Place,
    /// Heartbeats that are to be answered when there is room.
    pub(super) owed: u8,
    /// Without records, nothing may follow `AUTHORIZED` before then: it must be read by itself.
    pub(super) welcome: Option<Instant>,
}

impl Agent {
    pub(super) fn new(place: Place) -> Self {
        Self { place, owed: 0, welcome: None }
    }

    pub(super) fn owe(&mut self, beats: usize) {
        let beats = u8::try_from(beats).unwrap_or(OWED_BEATS);
        self.owed = self.owed.saturating_add(beats).min(OWED_BEATS);
    }
}

impl State {
    /// The authorized agent that this is.
    pub(super) fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Free { agent, .. } | Self::Joined { agent, .. } => Some(agent),
            _ => None,
        }
    }

    /// What the pump has to know of this end.
    pub(super) fn end(&self) -> End {
        if self.agent().is_some() { End::Wire } else { End::Open }
    }

    /// When the connection has outstayed its state. `None`: never, or what ends it is an event.
    ///
    /// `absence` is the heartbeat threshold of the agent's port, `patience` how long a half-closed session lasts.
    pub(super) fn deadline(&self, link: &Link, absence: Option<Duration>, patience: Duration) -> Option<Instant> {
        match self {
            Self::Braked { until, .. }
            | Self::Greeting { until, .. }
            | Self::Silent { until, .. }
            | Self::Waiting { until, .. } => Some(*until),
            Self::Free { agent: Agent { welcome: Some(until), .. }, .. }
            | Self::Joined { agent: Agent { welcome: Some(until), .. }, .. } => Some(*until),
            // Bytes that wait to be read count as life: it is we who do not read.
            Self::Free { .. } | Self::Joined { .. } if link.may_read() => None,
            // Without records an agent that is busy taking payload cannot ask for an answer: it would run together with
            // the payload. That it takes is its sign of life.
            Self::Joined { .. } if link.is_plain() => absence.map(|threshold| link.heard.max(link.told) + threshold),
            Self::Free { .. } | Self::Joined { .. } => absence.map(|threshold| link.heard + threshold),
            // A user that is joined lives as long as its agent.
            Self::Served { .. } => None,
            Self::HalfClosed { since, .. } => Some((*since).max(link.told) + patience),
            Self::Closing { closing, .. } => Some(closing.deadline(link)),
            Self::Api(api) => Some(api.deadline(link)),
            // Lives and dies with its Controller's connection.
            Self::Backend(_) => None,
            Self::Peer(peer) => Some(peer.deadline()),
        }
    }
}
