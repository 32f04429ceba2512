//! What a connection of the agent is doing, and until when it may.
//!
//! A *line* is a connection to the Connector. A *local* is one to the local service, or from a local client of a
//! tunnel. Each connection is in exactly one state; each state has a deadline, or a reason to have none.

use super::heartbeat::Pulse;
use super::pool::Place;
use crate::limits::PROVED;
use crate::net::closing::Closing;
use crate::net::link::Link;
use crate::net::marked::Marked;
use crate::net::reactor::Key;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The states of a connection.
pub(super) enum State {
    /// A line whose connect is under way. `rest`: addresses to try if it fails.
    Dialling { place: Place, rest: Vec<SocketAddr>, until: Instant },
    /// A line in its TLS handshake.
    Handshaking { place: Place, until: Instant },
    /// A line that has said the passcode; `heard` is the beginning of `AUTHORIZED`. `asked`: it said the preamble
    /// before, whose answer comes first.
    Greeting { place: Place, heard: Vec<u8>, asked: bool, until: Instant },
    /// A line that waits to be needed.
    Free(Line),
    /// A line that is needed: the local service is being looked up and dialled.
    Summoning { line: Line, first: First, local: Option<Key>, until: Instant },
    /// A line of a tunnel's exposing end: the service is there and the other end has been told. Its word is awaited.
    Answering { line: Line, local: Key, heard: Vec<u8>, until: Instant },
    /// A line of a tunnel's listening end, which calls the other end until that answers.
    Calling { line: Line, client: Key, heard: Vec<u8>, again: Instant, until: Instant },
    /// A line that is joined to a local connection.
    Joined { line: Line, local: Key },
    /// A local service whose connect is under way.
    Connecting { line: Key, rest: Vec<SocketAddr>, until: Instant },
    /// A local client that waits for a free line. Its bytes stay in the kernel.
    Waiting { until: Instant },
    /// A local connection that belongs to a line.
    Local { line: Key },
    /// A local client that will send no more, and may still be answered. `since`: the last payload for it.
    HalfClosed { line: Key, since: Instant },
    /// Done for; what is held still goes out.
    Closing(Closing),
}

/// An authorized connection to the Connector.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    /// When it was authorized.
    pub(super) born: Instant,
    /// Somebody has needed it: a client that leaves without a word is no failure of the line.
    pub(super) used: bool,
    pub(super) pulse: Pulse,
    /// Both ends mark where payload begins: dev mode, and a Connector that understood the preamble.
    pub(super) marked: Option<Marked>,
}

/// What made a line needed.
pub(super) enum First {
    /// The first payload: it goes to the local service once that is there.
    Payload(Vec<u8>),
    /// The other end of a tunnel has called.
    Call,
}

impl Line {
    pub(super) fn new(place: Place, marked: Option<Marked>, now: Instant) -> Self {
        Self { place, born: now, used: false, pulse: Pulse::new(now), marked }
    }

    /// No heartbeats any more, in one direction at least. The kernel's keepalive finds out whether the Connector's
    /// host is there.
    pub(super) fn is_beyond_heartbeats(&self) -> bool {
        self.marked.as_ref().is_some_and(Marked::is_beyond_heartbeats)
    }

    /// It was worth having: its place is filled again at once.
    pub(super) fn has_proved_itself(&self, now: Instant) -> bool {
        self.used || now >= self.born + PROVED
    }
}

impl State {
    /// The line, in the states that have one.
    pub(super) fn line(&self) -> Option<&Line> {
        match self {
            Self::Free(line)
            | Self::Summoning { line, .. }
            | Self::Answering { line, .. }
            | Self::Calling { line, .. }
            | Self::Joined { line, .. } => Some(line),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn line_mut(&mut self) -> Option<&mut Line> {
        match self {
            Self::Free(line)
            | Self::Summoning { line, .. }
            | Self::Answering { line, .. }
            | Self::Calling { line, .. }
            | Self::Joined { line, .. } => Some(line),
            _ => None,
        }
    }

    /// The connection that this one is joined to, or is to be.
    pub(super) fn partner(&self) -> Option<Key> {
        match self {
            Self::Summoning { local, .. } => *local,
            Self::Answering { local, .. } | Self::Joined { local, .. } => Some(*local),
            Self::Calling { client, .. } => Some(*client),
            Self::Connecting { line, .. } | Self::Local { line } | Self::HalfClosed { line, .. } => Some(*line),
            _ => None,
        }
    }

    /// When the connection has outstayed its state.
    ///
    /// `absence`: the heartbeat threshold. `patience`: how long a half-closed session may be silent.
    pub(super) fn deadline(&self, link: &Link, absence: Option<Duration>, patience: Duration) -> Option<Instant> {
        let own = match self {
            Self::Dialling { until, .. }
            | Self::Handshaking { until, .. }
            | Self::Greeting { until, .. }
            | Self::Summoning { until, .. }
            | Self::Answering { until, .. }
            | Self::Calling { until, .. }
            | Self::Connecting { until, .. }
            | Self::Waiting { until } => Some(*until),
            Self::HalfClosed { since, .. } => Some((*since).max(link.told) + patience),
            Self::Closing(closing) => Some(closing.deadline(link)),
            // Lives until it is needed, or found dead (below).
            Self::Free(_) => None,
            // A session lasts as long as its two ends.
            Self::Joined { .. } | Self::Local { .. } => None,
        };
        [own, self.dead_at(link, absence)].into_iter().flatten().min()
    }

    /// When a line is dead for want of an answer to its heartbeats.
    pub(super) fn dead_at(&self, link: &Link, absence: Option<Duration>) -> Option<Instant> {
        // Bytes that wait to be read count as life: it is we who do not read.
        let line = self.line().filter(|line| !link.may_read() && !line.is_beyond_heartbeats())?;
        line.pulse.dead_at(link.heard, absence?)
    }
}
