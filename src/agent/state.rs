//! What a connection of the agent is doing, and until when it may.
//!
//! A *line* is an authorized connection to the Connector. A *local* connection is one to the local service, or from a
//! local client of a tunnel. Each state has a deadline, or a reason to have none.

use super::heartbeat::Pulse;
use super::pool::SlotId;
use super::proxy::Stage;
use crate::limits::PROVED;
use crate::net::buffers::IoContext;
use crate::net::framed::Framed;
use crate::net::link::{Input, Link, LinkError};
use crate::net::marked::Marked;
use crate::net::pump::Framing;
use crate::net::reactor::Key;
use crate::net::session::Party;
use crate::wire::v2::open::Open;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Names a service; never used again for another one.
pub(crate) type ServiceId = usize;

/// A place of a service's pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) service: ServiceId,
    pub(super) slot: SlotId,
}

/// The states of a connection.
pub(crate) enum State {
    /// Its connect is under way. `rest`: addresses to try if it fails, or besides from `next` on. `besides`: another
    /// one may be under way for the same place.
    Dialling { to: Destination, rest: Vec<SocketAddr>, next: Option<Instant>, besides: bool, until: Instant },
    /// To a proxy, which is asked for the Connector. `heard` is the beginning of its answer.
    Proxying { place: Place, stage: Stage, heard: Vec<u8>, until: Instant },
    /// To the Connector, not authorized yet. `asked`: `None` in the TLS handshake; then the passcode has been sent.
    /// `heard` is the beginning of what authorizes it.
    Greeting { place: Place, heard: Vec<u8>, asked: Option<Asked>, until: Instant },
    /// An authorized connection to the Connector.
    Line(Line),
    /// A local client that waits for a free line. Its bytes stay in the kernel.
    Waiting { service: ServiceId, until: Instant },
    /// A local connection that belongs to a line.
    Local(Local),
}

/// What was sent with the passcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    Bare,
    /// The preamble of dev mode before it, whose answer comes first.
    Preamble,
    /// A hello behind it, with this token: its answer comes behind `AUTHORIZED`.
    Hello([u8; 8]),
}

/// What is dialled, and for whom.
#[derive(Clone, Copy)]
pub(crate) enum Destination {
    Connector(Place),
    /// The local service, for this line.
    Local {
        service: ServiceId,
        line: Key,
    },
}

/// An authorized connection to the Connector.
pub(crate) struct Line {
    pub(super) place: Place,
    /// When it was authorized.
    pub(super) born: Instant,
    /// Somebody has needed it: a client that leaves without a word is no failure of the line.
    pub(super) used: bool,
    pub(super) pulse: Pulse,
    /// Both ends mark where payload begins: dev mode, and a Connector that understood the preamble.
    pub(super) marked: Option<Marked>,
    /// Both ends speak in frames: version 2.
    pub(super) framed: Option<Box<Framed>>,
    pub(super) task: Task,
    pub(super) session: Session,
}

/// What is counted of a line's session.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(super) since: Instant,
    /// Payload that came through the Connector, and that went there. Bytes.
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Session {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, received: 0, sent: 0 }
    }
}

/// What a line is doing.
pub(crate) enum Task {
    /// Nobody needs it yet.
    Free,
    /// The local service is being looked up and dialled.
    Connecting { first: First, local: Option<Key>, until: Instant },
    /// At either end of a tunnel: a word of the other end is awaited. `call_at`: at the listening end, which calls the
    /// other one again then.
    Opening { local: Key, heard: Vec<u8>, call_at: Option<Instant>, until: Instant },
    /// At the listening end: the Connector has been told of a client, and is to join it to the other end. Frames.
    Calling { local: Key, until: Instant },
    /// It serves a session.
    Joined { local: Key },
    /// Its session is over, and the Connector has not confirmed that yet: frames.
    Released { until: Instant },
    /// Both ends have said that they will not use it again, and the Connector closes it: frames.
    Leaving { until: Instant },
}

impl Task {
    /// Somebody is served, or is to be.
    pub(super) fn is_session(&self) -> bool {
        matches!(self, Self::Connecting { .. } | Self::Opening { .. } | Self::Calling { .. } | Self::Joined { .. })
    }
}

/// What made a line needed.
pub(crate) enum First {
    /// The first payload: it goes to the local service once that is there.
    Payload(Vec<u8>),
    /// A user has connected: frames.
    Open(Box<Open>),
    /// The other end of a tunnel has called.
    Call,
}

/// A local connection that belongs to a line.
pub(crate) struct Local {
    pub(super) service: ServiceId,
    pub(super) line: Key,
    /// A tunnel's client; else the local service.
    pub(super) is_client: bool,
    /// It sends no more, and may still be answered: since the last payload for it.
    pub(super) half_closed: Option<Instant>,
}

impl Line {
    pub(super) fn new(place: Place, marked: Option<Marked>, framed: Option<Box<Framed>>, now: Instant) -> Self {
        Self {
            place,
            born: now,
            used: false,
            pulse: Pulse::new(now),
            marked,
            framed,
            task: Task::Free,
            session: Session::new(now),
        }
    }

    /// No heartbeats any more, in one direction at least. The kernel's keepalive finds out whether the Connector's
    /// host is there.
    pub(super) fn is_beyond_heartbeats(&self) -> bool {
        self.marked.as_ref().is_some_and(Marked::is_beyond_heartbeats)
    }

    /// Takes in the answers before the marker behind which payload begins. `None`: it has come, or there is none.
    pub(super) fn hear_marker(
        &mut self,
        link: &mut Link,
        ctx: &mut IoContext,
        now: Instant,
    ) -> Result<Option<Input>, LinkError> {
        let Some(marked) = self.marked.as_mut().filter(|marked| !marked.hears_payload()) else { return Ok(None) };
        let (answers, got) = marked.hear(link, ctx, now)?;
        self.pulse.answered(answers, now);
        Ok(Some(got).filter(|_| !marked.hears_payload()))
    }

    /// It was worth having: its place is filled again at once.
    pub(super) fn has_proved_itself(&self, now: Instant) -> bool {
        self.used || now >= self.born + PROVED
    }

    /// When it is dead for want of an answer to its heartbeats.
    pub(super) fn dead_at(&self, link: &Link, absence: Option<Duration>) -> Option<Instant> {
        // Bytes that wait to be read count as life: it is we who do not read.
        let lives = link.may_read() || self.is_beyond_heartbeats();
        absence.filter(|_| !lives).and_then(|absence| self.pulse.dead_at(link.last_rx, absence))
    }
}

impl Destination {
    fn service(self) -> ServiceId {
        match self {
            Self::Connector(place) => place.service,
            Self::Local { service, .. } => service,
        }
    }
}

impl State {
    /// Whose connection it is.
    pub(super) fn service(&self) -> ServiceId {
        match self {
            Self::Dialling { to, .. } => to.service(),
            Self::Proxying { place, .. } | Self::Greeting { place, .. } | Self::Line(Line { place, .. }) => {
                place.service
            }
            Self::Waiting { service, .. } | Self::Local(Local { service, .. }) => *service,
        }
    }

    /// The line that this is.
    pub(super) fn line(&self) -> Option<&Line> {
        if let Self::Line(line) = self { Some(line) } else { None }
    }

    /// The same, to be changed.
    pub(super) fn line_mut(&mut self) -> Option<&mut Line> {
        if let Self::Line(line) = self { Some(line) } else { None }
    }

    /// When the connection has outstayed its state. `absence`: the heartbeat threshold.
    pub(super) fn deadline(&self, link: &Link, absence: Option<Duration>) -> Option<Instant> {
        match self {
            Self::Dialling { next, until, .. } => Some(next.map_or(*until, |next| next.min(*until))),
            Self::Proxying { until, .. } | Self::Greeting { until, .. } | Self::Waiting { until, .. } => Some(*until),
            Self::Line(line) => {
                let until = match line.task {
                    Task::Connecting { until, .. }
                    | Task::Opening { until, .. }
                    | Task::Calling { until, .. }
                    | Task::Released { until }
                    | Task::Leaving { until } => Some(until),
                    // Lives until it is needed, or as long as its session, or is found dead.
                    Task::Free | Task::Joined { .. } => None,
                };
                [until, line.dead_at(link, absence)].into_iter().flatten().min()
            }
            Self::Local(_) => None,
        }
    }
}

impl Party for State {
    fn partner(&self) -> Option<Key> {
        match self {
            Self::Dialling { to: Destination::Local { line, .. }, .. } | Self::Local(Local { line, .. }) => Some(*line),
            Self::Line(line) => match line.task {
                Task::Connecting { local, .. } => local,
                Task::Opening { local, .. } | Task::Calling { local, .. } | Task::Joined { local } => Some(local),
                Task::Free | Task::Released { .. } | Task::Leaving { .. } => None,
            },
            _ => None,
        }
    }

    fn framing(&mut self, link: &Link) -> Framing<'_> {
        match self.line_mut() {
            Some(Line { framed: Some(framed), .. }) => Framing::Frames(framed),
            Some(_) if !link.is_plain() => Framing::Heartbeats,
            Some(Line { marked: None, pulse, .. }) => Framing::Answers(pulse.awaited()),
            _ => Framing::None,
        }
    }

    fn framed(&self) -> Option<&Framed> {
        self.line()?.framed.as_deref()
    }

    fn framed_mut(&mut self) -> Option<&mut Framed> {
        self.line_mut()?.framed.as_deref_mut()
    }

    fn may_half_close(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    fn is_asked(&self) -> bool {
        matches!(self, Self::Local(Local { is_client: false, .. }))
    }

    fn answer_beats(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        self.framed_mut().map_or(Ok(()), |framed| framed.send_due(link, ctx, now))
    }

    fn marked(&mut self) -> Option<&mut Marked> {
        self.line_mut()?.marked.as_mut()
    }

    fn quiet_until(&self, link: &Link, now: Instant) -> Option<Instant> {
        let is_delicate = |line: &&Line| link.is_plain() && line.marked.is_none() && line.framed.is_none();
        self.line().filter(is_delicate)?.pulse.hold(now)
    }

    fn heard_beats(&mut self, count: usize, now: Instant) {
        if let Self::Line(line) = self {
            let pongs = line.framed.as_mut().map_or(0, |framed| framed.take_pongs());
            line.pulse.answered(count + pongs, now);
        }
    }

    fn note_sent(&mut self, now: Instant) {
        match self {
            Self::Line(line) => line.used = true,
            Self::Local(local) => local.half_closed = local.half_closed.map(|_| now),
            _ => {}
        }
    }

    fn note_received(&mut self, now: Instant) {
        match self {
            Self::Line(line) => line.used = true,
            Self::Local(local) => local.half_closed = local.half_closed.map(|_| now),
            _ => {}
        }
    }

    fn note_half_closed(&mut self, now: Instant) {
        if let Self::Local(Local { is_client: true, half_closed, .. }) = self {
            half_closed.get_or_insert(now);
        }
    }

    fn half_close(&mut self, _: &Link, now: Instant) -> bool {
        match self {
            Self::Local(local) if local.is_client => {
                local.half_closed = Some(now);
                true
            }
            _ => false,
        }
    }

    fn half_closed_since(&self) -> Option<Instant> {
        if let Self::Local(local) = self { local.half_closed } else { None }
    }
}
