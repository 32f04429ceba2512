//! What a connection of the daemon is doing, and until when it may.
//!
//! Each connection is in exactly one state, and a state carries what belongs to it and nothing else: what a state holds
//! of queues and counts is given back when it is left ([`super::Relay::left`]). Each state has a deadline, or a reason
//! to have none.

use super::api::connection::{Api, Backend};
use super::broker::peer::Peer;
use super::pipe::{Agents, PipeKey, PipePort};
use super::queue::Ticket;
use super::rate_limit::Source;
use super::settling::Answer;
use crate::limits::OWED_BEATS;
use crate::net::buffers::IoContext;
use crate::net::framed::Framed;
use crate::net::link::{Link, LinkError};
use crate::net::marked::Marked;
use crate::net::pump::Framing;
use crate::net::reactor::{Group, Key};
use crate::net::session::Party;
use crate::network::Network;
use crate::wire::passcode::Offer;
use crate::wire::v1::BEAT;
use crate::wire::v2::open::Open;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections to the API are closed as a group of their own: those of mappings come after it.
pub(super) const API: Group = 0;

/// The states of a connection.
pub(crate) enum State {
    /// At an agent port: TLS handshake and passcode are to come.
    Unauthenticated(Unauthenticated),
    /// Turned away, and to be closed later.
    Rejected(Box<Rejected>),
    Agent(Agent),
    User(User),
    /// A Controller's connection.
    Api(Box<Api>),
    /// Its other half: our own connection to the HTTP parser.
    Backend(Backend),
    /// At the broker's port.
    Peer(Peer),
}

/// A connection at an agent port that has not shown its passcode.
pub(crate) struct Unauthenticated {
    pub(super) place: PipePort,
    pub(super) ticket: Ticket,
    pub(super) offer: Offer,
    /// Too much has failed in its network: it is not looked at before `until`. Else it is not waited for after that.
    pub(super) is_deferred: bool,
    pub(super) until: Instant,
}

/// A connection that has been rejected and not been told yet.
pub(crate) struct Rejected {
    pub(super) until: Instant,
    /// The mapping whose port it came to; with that it goes.
    pub(super) pipe: Option<PipeKey>,
    pub(super) ticket: Ticket,
    pub(super) source: Source,
    /// What it is sent in the end: its close_notify, say.
    pub(super) last_bytes: Box<[u8]>,
}

/// An authorized agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(super) place: PipePort,
    /// Where it comes from.
    pub(super) network: Network,
    pub(super) duty: Duty,
    /// It marks where payload begins, and so do we: dev mode, and an agent that began with the preamble.
    pub(super) marked: Option<Marked>,
    /// It speaks in frames: version 2.
    pub(super) framed: Option<Box<Framed>>,
    /// Heartbeats that are to be answered when there is room.
    pub(super) owed: u8,
    /// Without records, nothing may follow `AUTHORIZED` before then: it must be read by itself.
    pub(super) welcome: Option<Instant>,
    /// It may still be sending what was meant for somebody else: nobody is joined to it before then.
    pub(super) unsettled: Option<Instant>,
    /// It has sent payload while it was free, and is counted.
    pub(super) has_unsettled: bool,
    /// What it has sent to whom it is joined to.
    pub(super) answer: Answer,
    /// When payload last went either way in its session.
    pub(super) moved: Instant,
    /// When it was authorized, or, once it is joined, when its session began.
    pub(super) since: Instant,
    /// How long the user of its session had waited for an agent, milliseconds.
    pub(super) waited: u32,
    /// Payload of its session that came from it, bytes.
    pub(super) received: u64,
    /// When it was last sent a heartbeat.
    pub(super) beaten: Instant,
    /// Its payload had to wait for its reader since then.
    pub(super) held_back: bool,
    /// When it was last sent one that it had not asked for, and when the kernel had last taken something else.
    pub(super) prompted: Option<(Instant, Instant)>,
    /// It speaks version 1, is free, and has called the other end of a tunnel.
    pub(super) has_called: bool,
    /// It has called, and one direction of its session has ended: since the last payload of the other one.
    pub(super) half_closed: Option<Instant>,
}

/// What an agent is doing.
#[derive(Debug)]
pub(super) enum Duty {
    Free(Ticket),
    /// Joined to a user, or to an agent of the other side.
    Joined(Key),
    /// It wants to be joined to an agent of the other side, and none is free: frames.
    Calling(Box<Call>),
    /// Joined to an agent of the other side that speaks in frames, while it speaks version 1: first the words of a tunnel.
    Opening {
        peer: Key,
        heard: Vec<u8>,
        until: Instant,
    },
    /// Its session is over for us, and it has not confirmed that yet: frames.
    Released {
        until: Instant,
    },
}

impl Duty {
    /// Gives back its place in a queue of the agent's port, or in the count of those that are joined.
    pub(super) fn leave(self, agents: &mut Agents) {
        match self {
            Self::Free(ticket) => drop(agents.free.leave(ticket)),
            Self::Calling(call) => drop(agents.calling.leave(call.ticket)),
            Self::Joined(_) | Self::Opening { .. } => agents.joined -= 1,
            Self::Released { .. } => {}
        }
    }
}

/// What an agent waits for that wants to be joined to one of the other side.
#[derive(Debug)]
pub(super) struct Call {
    /// Its place in the queue of its port.
    pub(super) ticket: Ticket,
    pub(super) open: Box<Open>,
    pub(super) until: Instant,
}

/// A user of a public pipe.
pub(crate) struct User {
    pub(super) pipe: PipeKey,
    /// Where it comes from, as far as is known: behind a proxy, from that one's header on.
    pub(super) network: Network,
    /// Where it has called its proxy, if there is one that said so.
    pub(super) called: Option<SocketAddr>,
    /// Its proxy has said that there is no user: a health check, most likely.
    pub(super) is_nobody: bool,
    pub(super) stage: Stage,
}

/// How far a user has come.
pub(super) enum Stage {
    /// It comes from a proxy whose header is to come first.
    Proxied { ticket: Ticket, until: Instant },
    /// It has not sent a byte.
    Silent { ticket: Ticket, until: Instant },
    /// It has, while no agent is free. Its bytes stay in the kernel.
    Waiting { ticket: Ticket, since: Instant, until: Instant },
    /// It has an agent. `half_closed`: it sends no more, and may still be answered; since the last payload for it.
    Joined {
        agent: Key,
        half_closed: Option<Instant>,
        /// When payload last went either way.
        moved: Instant,
        /// Payload that came from it, bytes.
        received: u64,
    },
}

impl Agent {
    pub(super) fn new(place: PipePort, network: Network, ticket: Ticket, marked: Option<Marked>, now: Instant) -> Self {
        Self {
            place,
            network,
            duty: Duty::Free(ticket),
            marked,
            framed: None,
            owed: 0,
            welcome: None,
            unsettled: None,
            has_unsettled: false,
            answer: Answer::NotAsked,
            moved: now,
            since: now,
            waited: 0,
            received: 0,
            beaten: now,
            held_back: false,
            prompted: None,
            has_called: false,
            half_closed: None,
        }
    }

    /// It speaks in frames, and begins the sessions.
    pub(super) fn calls(&self) -> bool {
        self.framed.as_ref().is_some_and(|framed| framed.calls())
    }

    /// It speaks in frames, and serves what the other side begins.
    pub(super) fn serves(&self) -> bool {
        self.framed.as_ref().is_some_and(|framed| !framed.calls())
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.duty, Duty::Free(_))
    }

    /// When the kernel last took something of ours that was not sent for its own sake.
    pub(super) fn last_tx(&self, link: &Link) -> Instant {
        match self.prompted {
            Some((at, before)) if link.last_tx <= at => before,
            _ => link.last_tx,
        }
    }

    pub(super) fn owe(&mut self, beats: usize) {
        let beats = u8::try_from(beats).unwrap_or(OWED_BEATS);
        self.owed = self.owed.saturating_add(beats).min(OWED_BEATS);
    }

    /// Sends what is held, and then answers heartbeats, each by a write of its own.
    ///
    /// What cannot be sent now (all relay buffers are in use, and the kernel takes nothing) is owed until it can.
    pub(super) fn answer_beats(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if let Some(framed) = &mut self.framed {
            return framed.send_due(link, ctx, now);
        }
        if self.marked.as_ref().is_some_and(Marked::sends_payload) {
            self.owed = 0;
        }
        while link.flush(&mut ctx.pool, now)? && self.owed > 0 && link.can_send(&ctx.pool) {
            link.send(BEAT, ctx, now)?;
            self.owed -= 1;
            self.beaten = now;
            self.held_back = false;
        }
        Ok(())
    }

    /// `absence`: the heartbeat threshold of its port.
    fn deadline(&self, link: &Link, absence: Option<Duration>) -> Option<Instant> {
        if self.welcome.is_some() {
            return self.welcome;
        }
        match &self.duty {
            Duty::Free(_) if self.unsettled.is_some() => return self.unsettled,
            Duty::Released { until } | Duty::Opening { until, .. } => return Some(*until),
            Duty::Calling(call) => return Some(call.until),
            _ => {}
        }
        // Bytes that wait to be read count as life: it is we who do not read. Behind its marker it has no way to say
        // that it lives, and the kernel's keepalive finds out whether its host is there.
        if link.may_read() || self.marked.as_ref().is_some_and(Marked::is_beyond_heartbeats) {
            return None;
        }
        // Without records an agent that is busy taking payload cannot ask for an answer: it would run together with the
        // payload. That it takes is its sign of life.
        let takes = link.is_plain() && !self.is_free() && self.framed.is_none();
        let last = if takes { link.last_rx.max(self.last_tx(link)) } else { link.last_rx };
        absence.map(|threshold| last + threshold)
    }
}

impl State {
    /// The authorized agent that this is.
    pub(super) fn agent(&self) -> Option<&Agent> {
        if let Self::Agent(agent) = self { Some(agent) } else { None }
    }

    /// The same, to be changed.
    pub(super) fn agent_mut(&mut self) -> Option<&mut Agent> {
        if let Self::Agent(agent) = self { Some(agent) } else { None }
    }

    /// Counts payload that came from it and was passed on. Returns where it came in.
    pub(super) fn count(&mut self, payload: u64) -> Option<PipePort> {
        match self {
            Self::Agent(agent) => {
                agent.received += payload;
                Some(agent.place)
            }
            Self::User(User { pipe, stage: Stage::Joined { received, .. }, .. }) => {
                *received += payload;
                Some(PipePort { pipe: *pipe, side: 1 })
            }
            _ => None,
        }
    }

    fn note_moved(&mut self, now: Instant) {
        match self {
            Self::User(User { stage: Stage::Joined { moved, .. }, .. }) | Self::Agent(Agent { moved, .. }) => {
                *moved = now
            }
            _ => {}
        }
    }

    /// When payload last went either way in its session.
    pub(super) fn moved(&self) -> Option<Instant> {
        match self {
            Self::User(User { stage: Stage::Joined { moved, .. }, .. }) => Some(*moved),
            Self::Agent(Agent { moved, duty: Duty::Joined(_), .. }) => Some(*moved),
            _ => None,
        }
    }

    /// The mapping that a connection belongs to, and goes with.
    pub(super) fn pipe(&self) -> Option<PipeKey> {
        match self {
            Self::Unauthenticated(unauthenticated) => Some(unauthenticated.place.pipe),
            Self::Rejected(rejected) => rejected.pipe,
            Self::Agent(agent) => Some(agent.place.pipe),
            Self::User(user) => Some(user.pipe),
            Self::Api(_) | Self::Backend(_) | Self::Peer(_) => None,
        }
    }

    /// When the connection has outstayed its state. `None`: never, or what ends it is an event.
    ///
    /// `absence` is the heartbeat threshold of the agent's port.
    pub(super) fn deadline(&self, link: &Link, absence: Option<Duration>) -> Option<Instant> {
        match self {
            Self::Unauthenticated(unauthenticated) => Some(unauthenticated.until),
            Self::Rejected(rejected) => Some(rejected.until),
            Self::Agent(agent) => agent.deadline(link, absence),
            Self::User(User {
                stage: Stage::Proxied { until, .. } | Stage::Silent { until, .. } | Stage::Waiting { until, .. },
                ..
            }) => Some(*until),
            // A user that is joined lives as long as its agent, our connection to the parser as long as its Controller's.
            Self::User(_) | Self::Backend(_) => None,
            Self::Api(api) => Some(api.deadline(link)),
            Self::Peer(peer) => Some(peer.deadline()),
        }
    }
}

/// What the connections of a mapping are closed with.
pub(super) fn group_of(pipe: PipeKey) -> Group {
    API + 1 + pipe
}

impl Party for State {
    fn partner(&self) -> Option<Key> {
        match self {
            Self::Agent(Agent { duty: Duty::Joined(peer) | Duty::Opening { peer, .. }, .. }) => Some(*peer),
            Self::User(User { stage: Stage::Joined { agent, .. }, .. }) => Some(*agent),
            _ => None,
        }
    }

    fn group(&self) -> Option<Group> {
        if let Self::Api(_) = self { Some(API) } else { self.pipe().map(group_of) }
    }

    fn framing(&mut self, _: &Link) -> Framing<'_> {
        match self {
            Self::Agent(Agent { framed: Some(framed), .. }) => Framing::Frames(framed),
            // Behind its markers a connection has no heartbeats.
            Self::Agent(Agent { marked: None, .. }) => Framing::Heartbeats,
            _ => Framing::None,
        }
    }

    fn framed(&self) -> Option<&Framed> {
        self.agent()?.framed.as_deref()
    }

    fn framed_mut(&mut self) -> Option<&mut Framed> {
        self.agent_mut()?.framed.as_deref_mut()
    }

    fn marked(&mut self) -> Option<&mut Marked> {
        self.agent_mut()?.marked.as_mut()
    }

    fn quiet_until(&self, _: &Link, _: Instant) -> Option<Instant> {
        self.agent()?.welcome
    }

    fn heard_beats(&mut self, count: usize, _: Instant) {
        if let Self::Agent(agent) = self {
            agent.owe(count);
        }
    }

    fn may_half_close(&self) -> bool {
        matches!(self, Self::User(_))
    }

    // Who has ended and then breaks off, and speaks in frames, has called it.
    fn is_asked(&self) -> bool {
        matches!(self, Self::Agent(Agent { framed: None, .. }))
    }

    fn note_half_closed(&mut self, now: Instant) {
        match self {
            Self::User(User { stage: Stage::Joined { half_closed, .. }, .. }) => drop(half_closed.get_or_insert(now)),
            Self::Agent(Agent { framed: Some(framed), half_closed, .. }) if framed.calls() => {
                half_closed.get_or_insert(now);
            }
            _ => {}
        }
    }

    fn answer_beats(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if let Self::Agent(agent) = self { agent.answer_beats(link, ctx, now) } else { Ok(()) }
    }

    fn note_sent(&mut self, now: Instant) {
        match self {
            Self::User(User { stage: Stage::Joined { half_closed: Some(since), .. }, .. }) => *since = now,
            Self::Agent(agent) => {
                agent.answer.add(now);
                agent.half_closed = agent.half_closed.map(|_| now);
            }
            _ => {}
        }
        self.note_moved(now);
    }

    fn note_received(&mut self, now: Instant) {
        match self {
            Self::User(User { stage: Stage::Joined { half_closed: Some(since), .. }, .. }) => *since = now,
            Self::Agent(agent) => {
                agent.answer.ask_again();
                agent.half_closed = agent.half_closed.map(|_| now);
            }
            _ => {}
        }
        self.note_moved(now);
    }

    fn note_held_back(&mut self) {
        if let Self::Agent(agent) = self {
            agent.held_back = true;
        }
    }

    fn leaves_on_reset(&self) -> bool {
        matches!(self, Self::User(_))
    }

    // A user's last words are for nobody.
    fn is_heard_out(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    fn half_close(&mut self, link: &Link, now: Instant) -> bool {
        match self {
            Self::User(User { stage: Stage::Joined { half_closed, .. }, .. }) if link.is_plain() => {
                *half_closed = Some(now);
                true
            }
            // It is joined to one of version 1; else both directions end by themselves.
            Self::Agent(Agent { framed: Some(framed), half_closed, .. }) if framed.calls() => {
                *half_closed = Some(now);
                true
            }
            _ => false,
        }
    }

    fn half_closed_since(&self) -> Option<Instant> {
        match self {
            Self::User(User { stage: Stage::Joined { half_closed, .. }, .. }) => *half_closed,
            Self::Agent(agent) => agent.half_closed,
            _ => None,
        }
    }
}
