//! Moves bytes one way, from one link to another.
//!
//! The hot path of the relay: it does not allocate (TLS excepted, inside rustls), lock or log, and copies plain
//! bytes exactly once, out of the kernel and back. Back-pressure is the absence of reading: what the destination
//! has not taken stays in its outbox, and until that is empty the source is not read.
//!
//! | from | to | way |
//! |---|---|---|
//! | plain | plain | read into the destination's buffer, write it |
//! | TLS | TLS | one record in, one record out |
//! | TLS | plain | the message of each record is appended |
//! | plain | TLS | read, sealed in records as large as allowed |
//!
//! Frames (version 2) change none of this. Their headers are laid in front of the payload where it is read to, or are
//! left out of what is written, so that payload is not copied for them; only a record that is sealed again behind a
//! header has to be put together first.

mod plain;
mod records;

use super::buffers::{IoContext, Want};
use super::framed::Framed;
use super::link::{Input, Link, LinkError, Transport};
use crate::limits::CHUNKS_A_TURN;
use crate::wire::v1;
pub use records::send_payload;
use std::io::ErrorKind;
use std::time::Instant;

/// What travels on a connection besides payload.
#[derive(Debug)]
pub enum Framing<'f> {
    /// Nothing: every byte is payload.
    None,
    /// The agents' protocol: heartbeats are taken out on the way in and cannot be forged on the way out.
    Heartbeats,
    /// The same without TLS, where so many answers to heartbeats are to come: they may have run together with payload.
    Answers(usize),
    /// Version 2.
    Frames(&'f mut Framed),
}

impl<'f> Framing<'f> {
    fn frames(self) -> Option<&'f mut Framed> {
        if let Self::Frames(framed) = self { Some(framed) } else { None }
    }

    /// So many `BEAT` in one message are heartbeats; more are payload.
    fn most_beats(&self, is_plain: bool) -> usize {
        match self {
            Self::Heartbeats if is_plain => v1::BEATS_A_READ,
            Self::Heartbeats => v1::BEATS_A_RECORD,
            Self::None | Self::Answers(_) | Self::Frames(_) => 0,
        }
    }
}

/// What one call of [`pump`] did.
#[derive(Debug)]
pub struct Pumped {
    /// Bytes of payload that were taken from the source. If a link has failed, the destination may have them, the source
    /// has not.
    pub payload: u64,
    /// Heartbeats that were taken out.
    pub beats: usize,
    pub flow: Flow,
}

/// How one direction stands after its turn.
#[derive(Debug)]
pub enum Flow {
    /// There may be more: call again after the others.
    Again,
    /// The source has nothing now. An event will tell.
    WouldBlock,
    /// The destination takes no more now.
    Blocked,
    /// No buffer is free for this: call again when one has come back.
    Starved(Want),
    /// The source has ended and everything is in the destination's outbox or further.
    Eof,
    /// The source is of no more use, everything that could be read of it is on its way.
    SourceFailed(LinkError),
    /// The destination takes nothing any more. What it has sent may still be there to be read.
    SinkFailed(LinkError),
}

impl Flow {
    /// What a buffer is waited for.
    pub fn wants(&self) -> Option<Want> {
        if let Self::Starved(want) = self { Some(*want) } else { None }
    }

    pub(super) fn source_failed(fault: impl Into<LinkError>) -> Self {
        Self::SourceFailed(fault.into())
    }

    pub(super) fn sink_failed(fault: impl Into<LinkError>) -> Self {
        Self::SinkFailed(fault.into())
    }
}

/// Moves what is there, a bounded amount. Both handshakes must be done.
pub fn pump(
    (source, from): (&mut Link, Framing<'_>),
    (sink, to): (&mut Link, Framing<'_>),
    ctx: &mut IoContext,
    now: Instant,
) -> Pumped {
    let incoming = Incoming {
        most_beats: from.most_beats(source.is_plain()),
        answers: if let Framing::Answers(count) = from { count } else { 0 },
        from: from.frames(),
        payload: 0,
        beats: 0,
    };
    let shield = matches!(to, Framing::Heartbeats | Framing::Answers(_));
    let to = to.frames().map(|framed| &*framed);
    let mut transfer = Transfer { source, sink, incoming, to, shield, ctx, now };
    let flow = transfer.run().unwrap_or_else(|failed| failed);
    Pumped { payload: transfer.incoming.payload, beats: transfer.incoming.beats, flow }
}

/// One direction, for one turn.
struct Transfer<'t> {
    source: &'t mut Link,
    sink: &'t mut Link,
    incoming: Incoming<'t>,
    /// The sink speaks in frames.
    to: Option<&'t Framed>,
    /// The sink would take some payload for heartbeats.
    shield: bool,
    ctx: &'t mut IoContext,
    now: Instant,
}

/// How the direction stands after a step. `Err`: a link has failed.
type Step = Result<Flow, Flow>;

impl Transfer<'_> {
    fn run(&mut self) -> Step {
        for _ in 0..CHUNKS_A_TURN {
            if !self.flush()? {
                return Ok(Flow::Blocked);
            }
            let Some(way) = self.way() else { return Ok(Flow::WouldBlock) };
            let flow = way(self)?;
            if let (Flow::Eof, Some(_)) = (&flow, &self.incoming.from) {
                // The connection has ended, and the session that is on it has not, or cannot be answered any more.
                self.flush()?;
                return Err(Flow::source_failed(std::io::Error::from(ErrorKind::UnexpectedEof)));
            }
            if let Some(over) = self.incoming.is_over() {
                self.flush()?;
                return over;
            }
            if !matches!(flow, Flow::Again) {
                self.flush()?;
                return Ok(flow);
            }
        }
        Ok(if self.flush()? { Flow::Again } else { Flow::Blocked })
    }

    /// How the next chunk goes. `None`: there is nothing to be read.
    fn way(&self) -> Option<fn(&mut Self) -> Step> {
        if self.incoming.from.as_ref().is_some_and(|framed| framed.has_kept()) {
            return Some(Self::kept);
        }
        if !self.source.may_read() && !self.source.has_ended() {
            return None;
        }
        Some(match (&self.source.transport, &self.sink.transport) {
            (Transport::Plain, Transport::Plain) => Self::copy,
            (Transport::Plain, Transport::Tls(_)) => Self::seal,
            (Transport::Tls(_), _) => Self::records,
        })
    }

    /// True: the sink has taken everything.
    fn flush(&mut self) -> Result<bool, Flow> {
        self.sink.flush(&mut self.ctx.pool, self.now).map_err(Flow::sink_failed)
    }

    /// No buffer is free for what the sink is to get.
    fn starved(&self) -> Flow {
        Flow::Starved(self.sink.outbox.want())
    }

    fn after_reading(&self, got: Input) -> Flow {
        match got {
            Input::Data => Flow::Again,
            Input::WouldBlock => Flow::WouldBlock,
            Input::Starved => Flow::Starved(self.source.record_want()),
            Input::Eof => Flow::Eof,
        }
    }
}

/// Tells what the source sends besides payload from payload, and counts both.
struct Incoming<'f> {
    /// The source speaks in frames.
    from: Option<&'f mut Framed>,
    most_beats: usize,
    /// Answers that may stand before or behind payload.
    answers: usize,
    payload: u64,
    beats: usize,
}

impl Incoming<'_> {
    /// What the source sends in this session has come to its end.
    fn is_over(&self) -> Option<Step> {
        let framed = self.from.as_ref()?;
        match framed.reset() {
            Some(reason) => Some(Err(Flow::SourceFailed(LinkError::Reset(reason)))),
            None => framed.has_ended().then_some(Ok(Flow::Eof)),
        }
    }

    /// The part of `message` that is payload and goes on.
    fn admit<'m>(&mut self, message: &'m [u8]) -> &'m [u8] {
        let (payload, beats) = match v1::beats(message, self.most_beats) {
            0 => v1::sift(message, self.answers),
            beats => (&[][..], beats),
        };
        self.answers -= beats.min(self.answers);
        self.beats += beats;
        self.payload += payload.len() as u64;
        payload
    }
}
