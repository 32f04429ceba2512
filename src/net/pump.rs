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

use super::buffers::{IoContext, Pool, Want};
use super::link::{Input, Link, LinkError, Transport};
use super::outbox::{NoRoom, Outbox};
use super::tls::{MAX_MESSAGE, MAX_SEALED, Tls};
use crate::limits::CHUNKS_A_TURN;
use crate::wire::v1;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::Instant;

/// Room that one more message may need, cut in two (see [`v1::cut`]) and sealed.
const ONE_MESSAGE: usize = MAX_SEALED + 256;
/// Bytes that are read at once in order to be sealed: they fit one buffer afterwards.
const TO_SEAL: usize = 3 * MAX_MESSAGE;

/// What travels on a connection besides payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: every byte is payload.
    None,
    /// The agents' protocol: heartbeats are taken out on the way in and cannot be forged on the way out.
    Heartbeats,
    /// The same without TLS, where so many answers to heartbeats are to come: they may have run together with payload.
    Answers(usize),
}

impl Framing {
    /// So many `BEAT` in one message are heartbeats; more are payload.
    fn most_beats(self, is_plain: bool) -> usize {
        match self {
            Self::Heartbeats if is_plain => v1::BEATS_A_READ,
            Self::Heartbeats => v1::BEATS_A_RECORD,
            Self::None | Self::Answers(_) => 0,
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
    (source, from): (&mut Link, Framing),
    (sink, to): (&mut Link, Framing),
    ctx: &mut IoContext,
    now: Instant,
) -> Pumped {
    let mut tally = Tally {
        most_beats: from.most_beats(source.is_plain()),
        answers: if let Framing::Answers(count) = from { count } else { 0 },
        shield: to != Framing::None,
        payload: 0,
        beats: 0,
    };
    let flow = move_chunks(source, sink, &mut tally, ctx, now).unwrap_or_else(|failed| failed);
    Pumped { payload: tally.payload, beats: tally.beats, flow }
}

/// `Err`: a link has failed.
fn move_chunks(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    for _ in 0..CHUNKS_A_TURN {
        if !sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)? {
            return Ok(Flow::Blocked);
        }
        if !source.may_read() && !source.has_ended() {
            return Ok(Flow::WouldBlock);
        }
        let flow = match (&source.transport, &mut sink.transport) {
            (Transport::Plain, Transport::Plain) => copy(source, sink, tally, ctx, now),
            (Transport::Plain, Transport::Tls(tls)) => seal(source, tls, &mut sink.outbox, tally, ctx, now),
            (Transport::Tls(_), _) => records(source, sink, tally, ctx, now),
        }?;
        match flow {
            Flow::Again => {}
            // There is nothing to be flushed without a buffer.
            Flow::Blocked => return Ok(flow),
            _ => {
                sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)?;
                return Ok(flow);
            }
        }
    }
    let flushed = sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)?;
    Ok(if flushed { Flow::Again } else { Flow::Blocked })
}

fn after_reading(got: Input, source: &Link) -> Flow {
    match got {
        Input::Data => Flow::Again,
        Input::WouldBlock => Flow::WouldBlock,
        Input::Starved => Flow::Starved(source.record_want()),
        Input::Eof => Flow::Eof,
    }
}

/// Tells heartbeats from payload, and counts both.
struct Tally {
    most_beats: usize,
    /// Answers that may stand before or behind payload.
    answers: usize,
    shield: bool,
    payload: u64,
    beats: usize,
}

impl Tally {
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

fn copy(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let outbox = &mut sink.outbox;
    if !outbox.has_room(&ctx.pool) {
        return hand_over(source, sink, tally, ctx, now);
    }
    let Ok(room) = outbox.room(&mut ctx.pool) else { return Ok(Flow::Starved(sink.outbox.want())) };
    let read = source.read(room, now);
    let came = read.as_ref().map_or(0, |(_, count)| *count);
    let payload = tally.admit(&room[..came]);
    let count = payload.len();
    if count < came && count > 0 {
        // Rare: without TLS, with an answer to a heartbeat in front.
        let payload = payload.to_vec();
        room[..count].copy_from_slice(&payload);
    }
    outbox.filled(count, &mut ctx.pool);
    read.map(|(got, _)| after_reading(got, source)).map_err(Flow::source_failed)
}

/// [`copy`] without a buffer: only what the destination takes at once is taken from the source.
///
/// A call more a chunk, and bytes that are not taken are copied again later; but readers that hold all buffers
/// cannot stop the others.
fn hand_over(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let starved = Flow::Starved(sink.outbox.want());
    if tally.answers > 0 {
        return Ok(starved);
    }
    let seen = match source.look(&mut ctx.scratch) {
        Ok(None) => return Ok(Flow::WouldBlock),
        Ok(Some(0)) => return Ok(Flow::Eof),
        Ok(Some(seen)) => seen,
        Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(starved),
        Err(e) => return Err(Flow::source_failed(e)),
    };
    let bytes = &ctx.scratch[..seen];
    let taken = match v1::beats(bytes, tally.most_beats) > 0 {
        true => seen,
        false => sink.write_through(bytes, now).map_err(Flow::sink_failed)?,
    };
    tally.admit(&bytes[..taken]);
    source.dismiss(taken, &mut ctx.nowhere, now).map_err(Flow::source_failed)?;
    Ok(if taken == seen { Flow::Again } else { Flow::Blocked })
}

fn seal(
    source: &mut Link,
    tls: &mut Tls,
    outbox: &mut Outbox,
    tally: &mut Tally,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    // What has been read must have somewhere to go.
    if !outbox.has_room(&ctx.pool) {
        return Ok(Flow::Starved(outbox.want()));
    }
    let (got, count) = source.read(&mut ctx.scratch[..TO_SEAL], now).map_err(Flow::source_failed)?;
    for message in tally.admit(&ctx.scratch[..count]).chunks(MAX_MESSAGE) {
        put(Some(tls), outbox, message, tally.shield, &mut ctx.pool).map_err(Flow::SinkFailed)?;
    }
    Ok(after_reading(got, source))
}

fn records(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let outbox = &mut sink.outbox;
    // Not taken yet: the source's record comes first, which leaves the last buffer to payload. The other way round the
    // one that payload holds would keep the record from having one, again and again.
    if !outbox.has_room(&ctx.pool) {
        return Ok(Flow::Starved(outbox.want()));
    }
    let mut tls = match &mut sink.transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some(tls),
    };
    let mut failed = None;
    let got = source.records(ctx, now, |message, pool| {
        let payload = tally.admit(message);
        if !payload.is_empty() {
            if let Err(fault) = put(tls.as_deref_mut(), outbox, payload, tally.shield, pool) {
                failed = Some(fault);
                return ControlFlow::Break(());
            }
        }
        match outbox.room(pool) {
            Ok(room) if room.len() >= ONE_MESSAGE => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    outbox.filled(0, &mut ctx.pool);
    match failed {
        Some(fault) => Err(Flow::SinkFailed(fault)),
        None => got.map(|got| after_reading(got, source)).map_err(Flow::SourceFailed),
    }
}

/// Sends one message of payload towards an agent to whom nothing is on its way, past the pump. At most
/// [`MAX_MESSAGE`] bytes. Needs no buffer.
pub fn send_payload(to: &mut Link, message: &[u8], ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
    let (head, tail) = if to.is_plain() { (message, &[][..]) } else { v1::cut(message) };
    for piece in [head, tail].into_iter().filter(|piece| !piece.is_empty()) {
        to.send(piece, ctx, now)?;
    }
    Ok(())
}

/// Adds one message to the outbox: as a record of its own where there is TLS.
fn put(
    tls: Option<&mut Tls>,
    outbox: &mut Outbox,
    message: &[u8],
    shield: bool,
    pool: &mut Pool,
) -> Result<(), LinkError> {
    let no_room = |NoRoom| LinkError::Io(std::io::ErrorKind::OutOfMemory.into());
    let Some(tls) = tls else { return outbox.append(message, pool).map_err(no_room) };
    let (head, tail) = if shield { v1::cut(message) } else { (message, &[][..]) };
    for piece in [head, tail] {
        if !piece.is_empty() {
            let count = tls.seal(piece, outbox.room(pool).map_err(no_room)?)?;
            outbox.filled(count, pool);
        }
    }
    Ok(())
}
