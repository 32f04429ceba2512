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

use super::buffers::{IoContext, Pool, Want};
use super::framed::Framed;
use super::link::{Input, Link, LinkError, Transport};
use super::outbox::{NoRoom, Outbox};
use super::tls::{MAX_MESSAGE, MAX_SEALED, Tls};
use crate::limits::CHUNKS_A_TURN;
use crate::wire::v1;
use crate::wire::v2::frame::{HEADER, IN_A_RECORD};
use std::io::ErrorKind;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

/// Room that one more message may need, cut in two (see [`v1::cut`]) and sealed.
const ONE_MESSAGE: usize = MAX_SEALED + 256;
/// Bytes that are read at once in order to be sealed: they fit one buffer afterwards.
const TO_SEAL: usize = 3 * MAX_MESSAGE;

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
    let mut tally = Tally {
        most_beats: from.most_beats(source.is_plain()),
        answers: if let Framing::Answers(count) = from { count } else { 0 },
        shield: matches!(to, Framing::Heartbeats | Framing::Answers(_)),
        from: from.frames(),
        to: to.frames(),
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
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    for _ in 0..CHUNKS_A_TURN {
        if !sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)? {
            return Ok(Flow::Blocked);
        }
        let flow = if tally.from.as_ref().is_some_and(|framed| framed.has_kept()) {
            kept(sink, tally, ctx)
        } else if !source.may_read() && !source.has_ended() {
            return Ok(Flow::WouldBlock);
        } else {
            match (&source.transport, &mut sink.transport) {
                (Transport::Plain, Transport::Plain) => copy(source, sink, tally, ctx, now),
                (Transport::Plain, Transport::Tls(_)) => seal(source, sink, tally, ctx, now),
                (Transport::Tls(_), _) => records(source, sink, tally, ctx, now),
            }
        }?;
        if let (Flow::Eof, Some(_)) = (&flow, &tally.from) {
            // The connection has ended, and the session that is on it has not, or cannot be answered any more.
            sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)?;
            return Err(Flow::source_failed(std::io::Error::from(ErrorKind::UnexpectedEof)));
        }
        if let Some(over) = tally.is_over() {
            sink.flush(&mut ctx.pool, now).map_err(Flow::sink_failed)?;
            return over;
        }
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
struct Tally<'f> {
    /// The source speaks in frames.
    from: Option<&'f mut Framed>,
    /// The sink does.
    to: Option<&'f mut Framed>,
    most_beats: usize,
    /// Answers that may stand before or behind payload.
    answers: usize,
    shield: bool,
    payload: u64,
    beats: usize,
}

impl Tally<'_> {
    /// What the source sends in this session has come to its end.
    fn is_over(&self) -> Option<Result<Flow, Flow>> {
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

fn copy(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let outbox = &mut sink.outbox;
    if !outbox.has_room(&ctx.pool) {
        return hand_over(source, sink, tally, ctx, now);
    }
    let Ok(room) = outbox.room(&mut ctx.pool) else { return Ok(Flow::Starved(sink.outbox.want())) };
    // Whoever speaks in frames is read up to the end of the next header: what follows it begins in the right place.
    let (before, most) = (tally.room_before(), tally.most());
    let end = room.len().min(before.saturating_add(most));
    let read = source.read(&mut room[before..end], now);
    let came = read.as_ref().map_or(0, |(_, count)| *count);
    let (place, legal) = tally.lay(room, before..before + came);
    outbox.filled_at(place, &mut ctx.pool);
    legal.map_err(Flow::SourceFailed)?;
    read.map(|(got, _)| after_reading(got, source)).map_err(Flow::source_failed)
}

impl Tally<'_> {
    /// Bytes that are to be left free in front of what is read.
    fn room_before(&self) -> usize {
        match (&self.from, &self.to) {
            // In the middle of a frame or its header; else the frame's own header becomes the next one's.
            (Some(from), Some(_)) if from.is_within_frame() => HEADER,
            (None, Some(_)) => HEADER,
            _ => 0,
        }
    }

    /// Bytes that may be read at once.
    fn most(&self) -> usize {
        let most = self.to.as_ref().map_or(usize::MAX - HEADER, |to| to.largest());
        match &self.from {
            None => most,
            Some(from) if !from.is_within_frame() => most + HEADER,
            Some(from) if (1..=most).contains(&from.awaits()) => from.awaits() + HEADER,
            Some(_) => most,
        }
    }

    /// Makes what goes out of what was read to `came`. Returns where it is, and whether all of it was legal: what stands
    /// before an illegal frame goes out.
    fn lay(&mut self, room: &mut [u8], came: Range<usize>) -> (Range<usize>, Result<(), LinkError>) {
        if self.from.is_some() {
            return self.lay_frames(room, came);
        }
        let payload = self.admit(&room[came.clone()]);
        let count = payload.len();
        if count < came.len() && count > 0 {
            // Rare: without TLS, with an answer to a heartbeat in front.
            let payload = payload.to_vec();
            room[came.start..][..count].copy_from_slice(&payload);
        }
        let place = match &self.to {
            Some(to) if count > 0 => {
                room[..HEADER].copy_from_slice(&to.header(count));
                0..HEADER + count
            }
            _ => came.start..came.start + count,
        };
        (place, Ok(()))
    }

    /// The same where the source speaks in frames: payload moves only if it is in a frame behind another one.
    fn lay_frames(&mut self, room: &mut [u8], came: Range<usize>) -> (Range<usize>, Result<(), LinkError>) {
        let Some(from) = &mut self.from else { return (came, Ok(())) };
        let (mut at, mut out): (usize, Option<Range<usize>>) = (came.start, None);
        while at < came.end {
            let (used, payload) = match from.next(&room[at..came.end]) {
                Ok(next) => next,
                Err(fault) => return (out.unwrap_or(0..0), Err(fault)),
            };
            at += used;
            let Some(count) = payload else { break };
            self.payload += count as u64;
            let header = self.to.as_ref().map(|to| to.header(count));
            let before = header.map_or(0, |header| header.len());
            let start = match &out {
                None => at - count - before,
                Some(out) => out.end,
            };
            // Payload that is in its place already is not copied onto itself.
            if start + before != at - count {
                room.copy_within(at - count..at, start + before);
            }
            header.into_iter().for_each(|header| room[start..start + before].copy_from_slice(&header));
            out = Some(out.map_or(start, |out| out.start)..start + before + count);
        }
        from.keep(&room[at..came.end]);
        (out.unwrap_or(0..0), Ok(()))
    }
}

/// [`copy`] without a buffer: only what the destination takes at once is taken from the source.
///
/// A call more a chunk, and bytes that are not taken are copied again later; but readers that hold all buffers
/// cannot stop the others.
fn hand_over(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let starved = Flow::Starved(sink.outbox.want());
    if tally.answers > 0 || tally.from.is_some() || tally.to.is_some() {
        return hand_over_frames(source, sink, tally, ctx, now);
    }
    let seen = match look(source, &mut ctx.scratch, starved) {
        Ok(seen) => seen,
        Err(flow) => return flow,
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

/// The same where there are frames. One at a time, as large as a record.
fn hand_over_frames(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let starved = Flow::Starved(sink.outbox.want());
    if tally.answers > 0 || !sink.may_write() {
        return Ok(starved);
    }
    let end = HEADER + tally.to.as_ref().map_or(IN_A_RECORD, |to| to.largest().min(IN_A_RECORD));
    let seen = match look(source, &mut ctx.scratch[HEADER..end], starved) {
        Ok(seen) => seen,
        Err(flow) => return flow,
    };
    let came = HEADER..HEADER + seen;
    let (used, payload) = match &mut tally.from {
        None => (seen, Some(seen)),
        Some(from) => from.next(&ctx.scratch[came]).map_err(Flow::SourceFailed)?,
    };
    if let Some(count) = payload {
        let mut start = HEADER + used - count;
        if let Some(to) = &tally.to {
            start -= HEADER;
            ctx.scratch[start..start + HEADER].copy_from_slice(&to.header(count));
        }
        tally.payload += count as u64;
        // What the kernel does not take of it is kept without a buffer.
        sink.send_plain(start..HEADER + used, ctx, now).map_err(Flow::SinkFailed)?;
    }
    source.dismiss(used, &mut ctx.nowhere, now).map_err(Flow::source_failed)?;
    Ok(if sink.is_flushed() { Flow::Again } else { Flow::Blocked })
}

/// How much the source has to be taken; `Err`: how the direction stands if there is nothing, or no way to look.
fn look(source: &mut Link, room: &mut [u8], starved: Flow) -> Result<usize, Result<Flow, Flow>> {
    match source.look(room) {
        Ok(None) => Err(Ok(Flow::WouldBlock)),
        Ok(Some(0)) => Err(Ok(Flow::Eof)),
        Ok(Some(seen)) => Ok(seen),
        Err(e) if e.kind() == ErrorKind::Unsupported => Err(Ok(starved)),
        Err(e) => Err(Err(Flow::source_failed(e))),
    }
}

fn seal(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    // What has been read must have somewhere to go.
    if !sink.outbox.has_room(&ctx.pool) {
        return Ok(Flow::Starved(sink.outbox.want()));
    }
    let (before, each) = if tally.to.is_some() { (HEADER, IN_A_RECORD) } else { (0, MAX_MESSAGE) };
    let place = before..before + TO_SEAL / MAX_MESSAGE * each;
    let (got, count) = source.read(&mut ctx.scratch[place], now).map_err(Flow::source_failed)?;
    let (Link { transport: Transport::Tls(tls), outbox, .. }, None) = (&mut *sink, &tally.from) else {
        let message = ctx.scratch[before..before + count].to_vec();
        deliver(&message, sink, tally, ctx)?;
        return Ok(after_reading(got, source));
    };
    let Some(to) = &mut tally.to else {
        for message in tally.admit(&ctx.scratch[..count]).chunks(MAX_MESSAGE) {
            put(Some(tls), outbox, message, tally.shield, &mut ctx.pool).map_err(Flow::SinkFailed)?;
        }
        return Ok(after_reading(got, source));
    };
    tally.payload += count as u64;
    let mut at = 0;
    while at < count {
        let length = (count - at).min(each.min(to.largest()));
        // In the place of the last bytes of what has been sealed before.
        let frame = &mut ctx.scratch[at..at + HEADER + length];
        frame[..HEADER].copy_from_slice(&to.header(length));
        put(Some(tls), outbox, frame, false, &mut ctx.pool).map_err(Flow::SinkFailed)?;
        at += length;
    }
    Ok(after_reading(got, source))
}

/// What came behind the end of the session before.
fn kept(sink: &mut Link, tally: &mut Tally<'_>, ctx: &mut IoContext) -> Result<Flow, Flow> {
    if !sink.outbox.has_room(&ctx.pool) {
        return Ok(Flow::Starved(sink.outbox.want()));
    }
    let bytes = tally.from.as_mut().map(|from| from.take_kept()).unwrap_or_default();
    deliver(&bytes, sink, tally, ctx)?;
    Ok(Flow::Again)
}

/// Passes on what is in these bytes; rare, and not where much is moved.
fn deliver(bytes: &[u8], sink: &mut Link, tally: &mut Tally<'_>, ctx: &mut IoContext) -> Result<(), Flow> {
    let tls = sink.transport.tls();
    let result = tally.pass_on(bytes, tls, &mut sink.outbox, &mut ctx.frame, &mut ctx.pool);
    sink.outbox.filled(0, &mut ctx.pool);
    result.map(drop)
}

fn records(
    source: &mut Link,
    sink: &mut Link,
    tally: &mut Tally<'_>,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Flow, Flow> {
    let outbox = &mut sink.outbox;
    // Not taken yet: the source's record comes first, which leaves the last buffer to payload. The other way round the
    // one that payload holds would keep the record from having one, again and again.
    if !outbox.has_room(&ctx.pool) {
        return Ok(Flow::Starved(outbox.want()));
    }
    let mut tls = sink.transport.tls();
    let mut frame = std::mem::take(&mut ctx.frame);
    let mut failed = None;
    let got = source.records(ctx, now, |message, pool| {
        match tally.pass_on(message, tls.as_deref_mut(), outbox, &mut frame, pool) {
            Ok(flow) => flow,
            Err(fault) => {
                failed = Some(fault);
                ControlFlow::Break(())
            }
        }
    });
    ctx.frame = frame;
    outbox.filled(0, &mut ctx.pool);
    match failed {
        Some(fault) => Err(fault),
        None => got.map(|got| after_reading(got, source)).map_err(Flow::SourceFailed),
    }
}

impl Tally<'_> {
    /// Passes the payload of one message on. Breaks when there is not room for another one.
    fn pass_on(
        &mut self,
        message: &[u8],
        mut tls: Option<&mut Tls>,
        outbox: &mut Outbox,
        frame: &mut [u8],
        pool: &mut Pool,
    ) -> Result<ControlFlow<()>, Flow> {
        let mut flow = room_for_more(outbox, pool);
        let Some(from) = &mut self.from else {
            let payload = self.admit(message);
            if !payload.is_empty() {
                let (to, shield) = (self.to.as_deref_mut(), self.shield);
                put_framed(to, tls, outbox, payload, shield, frame, pool).map_err(Flow::SinkFailed)?;
                flow = room_for_more(outbox, pool);
            }
            return Ok(flow);
        };
        let mut at = 0;
        while at < message.len() && flow.is_continue() {
            let end = message.len().min(at + MAX_MESSAGE);
            let (used, payload) = from.next(&message[at..end]).map_err(Flow::SourceFailed)?;
            at += used;
            let Some(count) = payload else {
                if from.has_ended() || from.reset().is_some() {
                    flow = ControlFlow::Break(());
                }
                continue;
            };
            self.payload += count as u64;
            let (payload, to) = (&message[at - count..at], self.to.as_deref_mut());
            put_framed(to, tls.as_deref_mut(), outbox, payload, self.shield, frame, pool).map_err(Flow::SinkFailed)?;
            flow = room_for_more(outbox, pool);
        }
        from.keep(&message[at..]);
        Ok(flow)
    }
}

fn room_for_more(outbox: &mut Outbox, pool: &mut Pool) -> ControlFlow<()> {
    match outbox.room(pool) {
        Ok(room) if room.len() >= ONE_MESSAGE => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// [`put`], behind a header where the sink speaks in frames.
fn put_framed(
    to: Option<&mut Framed>,
    mut tls: Option<&mut Tls>,
    outbox: &mut Outbox,
    message: &[u8],
    shield: bool,
    frame: &mut [u8],
    pool: &mut Pool,
) -> Result<(), LinkError> {
    let Some(to) = to else { return put(tls, outbox, message, shield, pool) };
    for payload in message.chunks(to.largest().min(IN_A_RECORD)) {
        let length = HEADER + payload.len();
        frame[..HEADER].copy_from_slice(&to.header(payload.len()));
        frame[HEADER..length].copy_from_slice(payload);
        put(tls.as_deref_mut(), outbox, &frame[..length], false, pool)?;
    }
    Ok(())
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
