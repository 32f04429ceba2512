//! What a connection of the daemon is doing, and until when it may.
//!
//! Each connection is in exactly one state, and a state carries what belongs to it and nothing else: who leaves
//! a state gives its ticket back. Each state has a deadline, or a reason to have none.

use super::broker::Peer;
use super::front::{Api, Backend};
use super::offer::Offer;
use super::pipe::{PipeKey, Place};
use super::queue::Ticket;
use super::rejection::Rejected;
use super::settling::Answer;
use crate::limits::OWED_BEATS;
use crate::net::closing::Closing;
use crate::net::link::Link;
use crate::net::marked::Marked;
use crate::net::pump::End;
use crate::net::reactor::Key;
use std::time::{Duration, Instant};

/// The states of a connection.
pub(super) enum State {
    /// At an agent port, too much has failed in its network: not looked at before `turn`.
    Deferred { place: Place, ticket: Ticket, turn: Instant, offer: Offer },
    /// At an agent port: TLS handshake and passcode are to come.
    Greeting { place: Place, ticket: Ticket, until: Instant, offer: Offer },
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
    /// Turned away, and to be closed later.
    Rejected(Box<Rejected>),
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
    /// It marks where payload begins, and so do we: dev mode, and an agent that began with the preamble.
    pub(super) marked: Option<Marked>,
    /// Heartbeats that are to be answered when there is room.
    pub(super) owed: u8,
    /// Without records, nothing may follow `AUTHORIZED` before then: it must be read by itself.
    pub(super) welcome: Option<Instant>,
    /// It may still be sending what was meant for somebody else: nobody is joined to it before then.
    pub(super) unsettled: Option<Instant>,
    /// It has sent payload while it was free, and is counted.
    pub(super) has_unsettled: bool,
    /// What it has said to whom it is joined to.
    pub(super) answer: Answer,
    /// When it was authorized.
    pub(super) born: Instant,
    /// When it was last sent a heartbeat.
    pub(super) beaten: Instant,
    /// Its payload had to wait for its reader since then.
    pub(super) held_back: bool,
    /// When it was last sent one that it had not asked for, and when the kernel had last taken something else.
    pub(super) prompted: Option<(Instant, Instant)>,
}

impl Agent {
    pub(super) fn new(place: Place, marked: Option<Marked>, now: Instant) -> Self {
        Self {
            place,
            marked,
            owed: 0,
            welcome: None,
            unsettled: None,
            has_unsettled: false,
            answer: Answer::NotAsked,
            born: now,
            beaten: now,
            held_back: false,
            prompted: None,
        }
    }

    /// When the kernel last took something of ours that was not sent for its own sake.
    pub(super) fn told(&self, link: &Link) -> Instant {
        match self.prompted {
            Some((at, before)) if link.told <= at => before,
            _ => link.told,
        }
    }

    /// What the pump has to know of it: behind its marks a connection has no heartbeats.
    fn end(&self) -> End {
        if self.marked.is_some() { End::Open } else { End::Wire }
    }

    /// Whether it is to be heard of in time.
    fn is_beyond_heartbeats(&self) -> bool {
        self.marked.as_ref().is_some_and(Marked::is_beyond_heartbeats)
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

    /// The same, to be changed.
    pub(super) fn agent_mut(&mut self) -> Option<&mut Agent> {
        match self {
            Self::Free { agent, .. } | Self::Joined { agent, .. } => Some(agent),
            _ => None,
        }
    }

    /// What the pump has to know of this end.
    pub(super) fn end(&self) -> End {
        self.agent().map_or(End::Open, Agent::end)
    }

    /// When the connection has outstayed its state. `None`: never, or what ends it is an event.
    ///
    /// `absence` is the heartbeat threshold of the agent's port, `patience` how long a half-closed session lasts.
    pub(super) fn deadline(&self, link: &Link, absence: Option<Duration>, patience: Duration) -> Option<Instant> {
        match self {
            Self::Deferred { turn, .. } => Some(*turn),
            Self::Greeting { until, .. } | Self::Silent { until, .. } | Self::Waiting { until, .. } => Some(*until),
            Self::Free { agent: Agent { welcome: Some(until), .. }, .. }
            | Self::Joined { agent: Agent { welcome: Some(until), .. }, .. } => Some(*until),
            Self::Free { agent: Agent { unsettled: Some(until), .. }, .. } => Some(*until),
            // Bytes that wait to be read count as life: it is we who do not read.
            Self::Free { .. } | Self::Joined { .. } if link.may_read() => None,
            // It has no way to say so, and the kernel's keepalive finds out whether its host is there.
            Self::Free { agent, .. } | Self::Joined { agent, .. } if agent.is_beyond_heartbeats() => None,
            // Without records an agent that is busy taking payload cannot ask for an answer: it would run together with
            // the payload. That it takes is its sign of life.
            Self::Joined { agent, .. } if link.is_plain() => {
                absence.map(|threshold| link.heard.max(agent.told(link)) + threshold)
            }
            Self::Free { .. } | Self::Joined { .. } => absence.map(|threshold| link.heard + threshold),
            // A user that is joined lives as long as its agent.
            Self::Served { .. } => None,
            Self::HalfClosed { since, .. } => Some((*since).max(link.told) + patience),
            Self::Rejected(rejected) => Some(rejected.until),
            Self::Closing { closing, .. } => Some(closing.deadline(link)),
            Self::Api(api) => Some(api.deadline(link)),
            // Lives and dies with its Controller's connection.
            Self::Backend(_) => None,
            Self::Peer(peer) => Some(peer.deadline()),
        }
    }
}
