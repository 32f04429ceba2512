//! One connection that speaks in frames: one session after the other, and what may be said when.
//!
//! A session begins with OPEN: the Connector's; or the agent's, where that one calls, and then the Connector answers it
//! with ACCEPT. Each side may then send DATA until its own FIN or RESET, and the session is over for a side that has sent
//! one of the two and heard one of the two. Nothing of it but a RESET can still come then from a peer that keeps to this.
//! What crosses our own RESET is thrown away.
//!
//! Bytes go in as they come, in any pieces; payload is not copied.

use super::frame::{HEADER, Header, Reason, header, kind};
use super::open::Open;
use crate::limits::FRAME;
use std::fmt;
use std::ops::RangeInclusive;

/// Bytes that a frame other than DATA may have.
const CONTROL: u16 = 1024;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Connector,
    Agent,
    /// The same where the agent begins the sessions.
    CalledConnector,
    CallingAgent,
}

impl Role {
    /// It begins the sessions.
    fn opens(self) -> bool {
        matches!(self, Self::Connector | Self::CallingAgent)
    }

    /// It asks the other end for connections.
    fn wants(self) -> bool {
        matches!(self, Self::Connector | Self::CalledConnector)
    }
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The last so many of the bytes that were used are payload of the session.
    Payload(usize),
    /// A session is to begin: [`Channel::accept`].
    Open(Open),
    /// The session that we have asked for has begun.
    Accepted,
    /// All payload has come.
    Fin,
    /// The session is broken off.
    Reset(Reason),
    Ping,
    Pong,
    Want(u16),
    /// No further session is to begin.
    Bye,
}

/// The peer does not keep to the rules: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This type is not known, and may not be skipped.
    Unknown(u8),
    /// Longer than was agreed on, or too short for what it is.
    Length(u8),
    /// This type may not be said now.
    Order(u8),
    /// OPEN with something in it that is not understood.
    Open,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(kind) => write!(f, "a frame of unknown type {kind}"),
            Self::Length(kind) => write!(f, "a frame of type {kind} with a wrong length"),
            Self::Order(kind) => write!(f, "a frame of type {kind} at a wrong time"),
            Self::Open => f.write_str("an OPEN that is not understood"),
        }
    }
}

impl std::error::Error for Fault {}

/// One end of such a connection.
#[derive(Clone, Debug)]
pub struct Channel {
    role: Role,
    /// Bytes that the peer takes in a frame.
    largest: u16,
    /// The number of the session that is, or that was last.
    session: u8,
    /// We have not ended it yet.
    sends: bool,
    /// The peer has not.
    hears: bool,
    /// All that the peer had to send has come.
    is_complete: bool,
    /// We have broken it off: what still comes of it, up to the peer's end, is for nobody.
    discards: bool,
    /// An OPEN has come that has not been accepted yet.
    is_asked: bool,
    /// The agent has called, and nothing of the session but RESET may be said before ACCEPT, even if it is broken off.
    is_pending: bool,
    header: [u8; HEADER],
    /// Bytes of it that have come, while it is not complete.
    have: u8,
    body: Body,
}

/// What is to come of the frame whose header has come.
#[derive(Clone, Debug)]
enum Body {
    None,
    Payload(u16),
    Skip(u16),
    /// The beginning of a frame that means something only when it is complete.
    Part(Header, Vec<u8>),
}

impl Channel {
    /// `largest`: what the peer's hello says.
    pub fn new(role: Role, largest: u16) -> Self {
        Self {
            role,
            largest,
            session: 0,
            sends: false,
            hears: false,
            is_complete: false,
            discards: false,
            is_asked: false,
            is_pending: false,
            header: [0; HEADER],
            have: 0,
            body: Body::None,
        }
    }

    /// The agent begins the sessions.
    pub fn calls(&self) -> bool {
        matches!(self.role, Role::CalledConnector | Role::CallingAgent)
    }

    /// There is no session, or it is over.
    pub fn is_over(&self) -> bool {
        !self.sends && !self.hears && !self.is_asked
    }

    /// We may send payload.
    pub fn sends(&self) -> bool {
        self.sends
    }

    /// The peer may send payload.
    pub fn hears(&self) -> bool {
        self.hears
    }

    /// The peer has said that all payload of the session has come.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Payload that the peer takes in one frame, bytes.
    pub fn largest(&self) -> usize {
        self.largest.into()
    }

    /// Bytes of payload that are still to come of the frame that has begun.
    pub fn awaits(&self) -> usize {
        match self.body {
            Body::Payload(left) if self.have == 0 => left.into(),
            _ => 0,
        }
    }

    /// Bytes that come before the next payload at least: the rest of a header, or of a frame without payload.
    pub fn before_payload(&self) -> usize {
        match &self.body {
            Body::None => HEADER - usize::from(self.have),
            Body::Payload(_) => 0,
            Body::Skip(left) => (*left).into(),
            Body::Part(header, part) => usize::from(header.length) - part.len(),
        }
    }

    /// What comes next is not the beginning of a header.
    pub fn is_within_frame(&self) -> bool {
        self.have > 0 || !matches!(self.body, Body::None)
    }

    /// The agent has called, and the session has not begun yet.
    pub fn is_pending(&self) -> bool {
        self.is_pending && self.sends
    }

    /// Begins a session, or asks for one: that of an agent that calls begins with [`Event::Accepted`]. The one before it is
    /// over.
    pub fn open(&mut self, open: &Open) -> Vec<u8> {
        debug_assert!(self.is_over() && self.role.opens());
        self.begin();
        let payload = open.encode();
        [&self.frame(kind::OPEN, payload.len()), &payload[..]].concat()
    }

    /// The session that was asked for begins. That of an agent that calls does with [`Channel::answer`].
    pub fn accept(&mut self) {
        debug_assert!(self.is_asked);
        self.is_asked = false;
        self.begin();
    }

    fn begin(&mut self) {
        self.session = Header::next(self.session);
        (self.sends, self.hears, self.is_complete, self.discards) = (true, true, false, false);
        self.is_pending = self.calls();
    }

    /// Tells the agent that has called that its session begins.
    pub fn answer(&mut self) -> [u8; HEADER] {
        debug_assert!(self.is_pending() && self.role == Role::CalledConnector);
        self.is_pending = false;
        self.frame(kind::ACCEPT, 0)
    }

    /// The header of so much payload, at most [`Channel::largest`].
    pub fn data(&self, length: usize) -> [u8; HEADER] {
        debug_assert!(self.sends && length <= self.largest());
        self.frame(kind::DATA, length)
    }

    /// Ends our half of the session: all payload has been sent.
    pub fn fin(&mut self) -> [u8; HEADER] {
        debug_assert!(self.sends);
        self.sends = false;
        self.frame(kind::FIN, 0)
    }

    /// Breaks the session off. What the peer still sends is for nobody.
    pub fn reset(&mut self, reason: Reason) -> [u8; HEADER + 1] {
        debug_assert!(self.sends || self.hears);
        (self.sends, self.discards) = (false, true);
        let [kind, session, high, low] = self.frame(kind::RESET, 1);
        [kind, session, high, low, reason.code()]
    }

    fn frame(&self, kind: u8, length: usize) -> [u8; HEADER] {
        header(kind, self.session, length as u16)
    }

    /// Takes from the beginning of `bytes` what makes one event, or all of them. Returns how many were used.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>), Fault> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            if rest.is_empty() || self.is_asked {
                return Ok((used, None));
            }
            if let Body::None = self.body {
                let count = rest.len().min(HEADER - usize::from(self.have));
                self.header[self.have.into()..][..count].copy_from_slice(&rest[..count]);
                self.have += count as u8;
                used += count;
                if usize::from(self.have) == HEADER {
                    self.have = 0;
                    let header = Header::decode(self.header);
                    self.body = self.understand(header)?;
                    if let Some(event) = self.complete()? {
                        return Ok((used, Some(event)));
                    }
                }
                continue;
            }
            match &mut self.body {
                Body::None => {}
                Body::Payload(left) | Body::Skip(left) => {
                    let count = rest.len().min((*left).into());
                    *left -= count as u16;
                    used += count;
                    // Its session may have been broken off in the middle of the frame.
                    let is_payload = matches!(self.body, Body::Payload(_)) && !self.discards;
                    self.complete()?;
                    if is_payload {
                        return Ok((used, Some(Event::Payload(count))));
                    }
                }
                Body::Part(header, part) => {
                    let count = rest.len().min(usize::from(header.length) - part.len());
                    part.extend_from_slice(&rest[..count]);
                    used += count;
                    if let Some(event) = self.complete()? {
                        return Ok((used, Some(event)));
                    }
                }
            }
        }
    }

    /// What follows this header.
    fn understand(&self, header: Header) -> Result<Body, Fault> {
        let Header { kind, may_be_ignored, session, length } = header;
        // Whether it is for somebody or skipped.
        if !lengths(kind).contains(&length) {
            return Err(Fault::Length(kind));
        }
        match kind {
            kind::DATA | kind::FIN | kind::RESET if session != self.session => Ok(Body::Skip(length)),
            // Its answer is awaited before the next session begins: it cannot be late.
            kind::ACCEPT if session != self.session => Err(Fault::Order(kind)),
            kind::ACCEPT if self.role != Role::CallingAgent || !self.is_pending || !self.hears => {
                Err(Fault::Order(kind))
            }
            kind::DATA | kind::FIN if self.is_pending || !self.hears => Err(Fault::Order(kind)),
            // It has crossed our own RESET.
            kind::DATA if self.discards => Ok(Body::Skip(length)),
            kind::DATA => Ok(Body::Payload(length)),
            kind::OPEN if self.role.opens() || !self.is_over() => Err(Fault::Order(kind)),
            kind::OPEN if session != Header::next(self.session) => Err(Fault::Order(kind)),
            kind::WANT if self.role.wants() => Err(Fault::Order(kind)),
            kind::OPEN | kind::FIN | kind::RESET | kind::PING | kind::PONG | kind::WANT | kind::BYE | kind::ACCEPT => {
                Ok(Body::Part(header, Vec::new()))
            }
            _ if may_be_ignored => Ok(Body::Skip(length)),
            _ => Err(Fault::Unknown(kind)),
        }
    }

    /// Acts on a frame of which everything has come.
    fn complete(&mut self) -> Result<Option<Event>, Fault> {
        match &self.body {
            Body::None => return Ok(None),
            Body::Payload(left) | Body::Skip(left) if *left > 0 => return Ok(None),
            Body::Part(header, part) if part.len() < header.length.into() => return Ok(None),
            _ => {}
        }
        match std::mem::replace(&mut self.body, Body::None) {
            // The next session may have begun in the middle of the frame.
            Body::Part(Header { kind: kind::FIN | kind::RESET | kind::ACCEPT, session, .. }, _)
                if session != self.session =>
            {
                Ok(None)
            }
            Body::Part(header, part) => self.act(header.kind, &part),
            _ => Ok(None),
        }
    }

    fn act(&mut self, kind: u8, payload: &[u8]) -> Result<Option<Event>, Fault> {
        let event = match (kind, payload) {
            (kind::OPEN, payload) => {
                let open = Open::decode(payload).ok_or(Fault::Open)?;
                self.is_asked = true;
                Event::Open(open)
            }
            (kind::ACCEPT, _) => {
                self.is_pending = false;
                // It has crossed our own RESET.
                if self.discards {
                    return Ok(None);
                }
                Event::Accepted
            }
            (kind::FIN, _) => {
                self.is_complete = self.hears && !self.discards;
                self.hears = false;
                Event::Fin
            }
            (kind::RESET, [code, ..]) => {
                let is_over = !self.sends && !self.hears;
                self.hears = false;
                if is_over {
                    return Ok(None);
                }
                Event::Reset(Reason::of(*code))
            }
            (kind::PING, _) => Event::Ping,
            (kind::PONG, _) => Event::Pong,
            (kind::WANT, &[high, low, ..]) => Event::Want(u16::from_be_bytes([high, low])),
            (kind::BYE, _) => Event::Bye,
            _ => return Err(Fault::Length(kind)),
        };
        Ok(Some(event))
    }
}

/// The bytes of payload that a frame of this type may have.
fn lengths(kind: u8) -> RangeInclusive<u16> {
    match kind {
        kind::WANT => 2..=CONTROL,
        kind::RESET => 1..=CONTROL,
        kind::DATA => 0..=FRAME,
        _ => 0..=CONTROL,
    }
}
