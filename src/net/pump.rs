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

use super::buffers::{Desk, Pool, Want};
use super::link::{Fault, Flow, Got, Link, Transport};
use super::outbox::{NoRoom, Outbox};
use super::tls::{MAX_MESSAGE, MAX_SEALED, Tls};
use super::wire;
use std::io::ErrorKind;
use std::time::Instant;

/// Chunks that one call moves at most, so that a busy pipe does not starve the others.
const TURN: usize = 4;
/// Room that one more message may need, cut in two (see [`wire::cut`]) and sealed.
const ONE_MESSAGE: usize = MAX_SEALED + 256;
/// Bytes that are read at once in order to be sealed: they fit one buffer afterwards.
const TO_SEAL: usize = 3 * MAX_MESSAGE;

/// Who sits at one end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Speaks the agents' protocol: heartbeats are taken out on the way in and cannot be forged on the way out.
    Wire,
    /// Anybody: every byte is payload.
    Open,
}

impl End {
    /// So many `BEAT` in one message are heartbeats; more are payload.
    fn most_beats(self, is_plain: bool) -> usize {
        match self {
            Self::Wire if is_plain => wire::BEATS_A_READ,
            Self::Wire => wire::BEATS_A_RECORD,
            Self::Open => 0,
        }
    }
}

/// What one call of [`pump`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pumped {
    /// Bytes of payload that were taken from the source.
    pub payload: u64,
    /// Heartbeats that were taken out.
    pub beats: usize,
    pub then: Then,
}

/// Why the call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// There may be more: call again after the others.
    Again,
    /// The source has nothing now.
    Dry,
    /// The destination takes no more now.
    Full,
    /// No buffer is free for this: call again when one has come back.
    Starved(Want),
    /// The source has ended and everything is in the destination's outbox or further.
    Ended,
}

impl Then {
    /// What a buffer is waited for.
    pub fn wants(self) -> Option<Want> {
        if let Self::Starved(want) = self { Some(want) } else { None }
    }
}

/// Which of the two links is of no more use.
#[derive(Debug)]
pub enum Fail {
    Source(Fault),
    Destination(Fault),
}

/// A call of [`pump`] that ended with a failure.
#[derive(Debug)]
pub struct Failed {
    pub fail: Fail,
    /// Bytes of payload that were taken from the source before: the destination may have them, the source has not.
    pub payload: u64,
}

/// Moves what is there, a bounded amount. Both handshakes must be done.
pub fn pump(from: (&mut Link, End), to: (&mut Link, End), desk: &mut Desk, now: Instant) -> Result<Pumped, Failed> {
    let mut done = Pumped { payload: 0, beats: 0, then: Then::Again };
    match move_chunks(from, to, &mut done, desk, now) {
        Ok(then) => Ok(Pumped { then, ..done }),
        Err(fail) => Err(Failed { fail, payload: done.payload }),
    }
}

fn move_chunks(
    (source, source_end): (&mut Link, End),
    (destination, destination_end): (&mut Link, End),
    done: &mut Pumped,
    desk: &mut Desk,
    now: Instant,
) -> Result<Then, Fail> {
    for _ in 0..TURN {
        if !destination.flush(&mut desk.pool, now).map_err(|e| Fail::Destination(e.into()))? {
            return Ok(Then::Full);
        }
        if !source.may_read() && !source.has_ended() {
            return Ok(Then::Dry);
        }
        let most_beats = source_end.most_beats(source.is_plain());
        let mut tally = Tally { most_beats, shield: destination_end == End::Wire, payload: 0, beats: 0 };
        let chunk = match (&source.transport, &mut destination.transport) {
            (Transport::Plain, Transport::Plain) => copy(source, destination, &mut tally, desk, now),
            (Transport::Plain, Transport::Tls(tls)) => {
                seal(source, tls, &mut destination.outbox, &mut tally, desk, now)
            }
            (Transport::Tls(_), _) => records(source, destination, &mut tally, desk, now),
        };
        done.payload += tally.payload;
        done.beats += tally.beats;
        match chunk? {
            Chunk::Read(Got::Some) => {}
            Chunk::Starved => return Ok(Then::Starved(destination.outbox.want())),
            Chunk::Read(Got::Starved) => {
                destination.flush(&mut desk.pool, now).map_err(|e| Fail::Destination(e.into()))?;
                return Ok(Then::Starved(source.record_want()));
            }
            Chunk::Blocked => return Ok(Then::Full),
            Chunk::Read(got) => {
                destination.flush(&mut desk.pool, now).map_err(|e| Fail::Destination(e.into()))?;
                return Ok(if got == Got::End { Then::Ended } else { Then::Dry });
            }
        }
    }
    let flushed = destination.flush(&mut desk.pool, now).map_err(|e| Fail::Destination(e.into()))?;
    Ok(if flushed { Then::Again } else { Then::Full })
}

enum Chunk {
    Read(Got),
    /// No buffer.
    Starved,
    /// The destination takes no more now.
    Blocked,
}

/// Tells heartbeats from payload, and counts both.
struct Tally {
    most_beats: usize,
    shield: bool,
    payload: u64,
    beats: usize,
}

impl Tally {
    /// True: `message` is payload and goes on.
    fn admit(&mut self, message: &[u8]) -> bool {
        let beats = wire::beats(message, self.most_beats);
        self.beats += beats;
        if beats == 0 {
            self.payload += message.len() as u64;
        }
        beats == 0
    }
}

fn copy(
    source: &mut Link,
    destination: &mut Link,
    tally: &mut Tally,
    desk: &mut Desk,
    now: Instant,
) -> Result<Chunk, Fail> {
    let outbox = &mut destination.outbox;
    if !outbox.has_room(&desk.pool) {
        return hand_over(source, destination, tally, desk, now);
    }
    let Ok(room) = outbox.room(&mut desk.pool) else { return Ok(Chunk::Starved) };
    let read = source.read(room, now);
    let count = match &read {
        Ok((_, count)) if tally.admit(&room[..*count]) => *count,
        _ => 0,
    };
    outbox.filled(count, &mut desk.pool);
    read.map(|(got, _)| Chunk::Read(got)).map_err(|e| Fail::Source(e.into()))
}

/// [`copy`] without a buffer: only what the destination takes at once is taken from the source.
///
/// A call more a chunk, and bytes that are not taken are copied again later; but readers that hold all buffers
/// cannot stop the others.
fn hand_over(
    source: &mut Link,
    destination: &mut Link,
    tally: &mut Tally,
    desk: &mut Desk,
    now: Instant,
) -> Result<Chunk, Fail> {
    let seen = match source.look(&mut desk.scratch) {
        Ok(None) => return Ok(Chunk::Read(Got::Dry)),
        Ok(Some(0)) => return Ok(Chunk::Read(Got::End)),
        Ok(Some(seen)) => seen,
        Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(Chunk::Starved),
        Err(e) => return Err(Fail::Source(e.into())),
    };
    let bytes = &desk.scratch[..seen];
    let taken = match wire::beats(bytes, tally.most_beats) > 0 {
        true => seen,
        false => destination.write_through(bytes, now).map_err(|e| Fail::Destination(e.into()))?,
    };
    tally.admit(&bytes[..taken]);
    source.dismiss(taken, &mut desk.nowhere, now).map_err(|e| Fail::Source(e.into()))?;
    Ok(if taken == seen { Chunk::Read(Got::Some) } else { Chunk::Blocked })
}

fn seal(
    source: &mut Link,
    tls: &mut Tls,
    outbox: &mut Outbox,
    tally: &mut Tally,
    desk: &mut Desk,
    now: Instant,
) -> Result<Chunk, Fail> {
    // What has been read must have somewhere to go.
    if !outbox.has_room(&desk.pool) {
        return Ok(Chunk::Starved);
    }
    let read = source.read(&mut desk.scratch[..TO_SEAL], now);
    let (got, count) = read.map_err(|e| Fail::Source(e.into()))?;
    let bytes = &desk.scratch[..count];
    if tally.admit(bytes) {
        for message in bytes.chunks(MAX_MESSAGE) {
            put(Some(tls), outbox, message, tally.shield, &mut desk.pool).map_err(Fail::Destination)?;
        }
    }
    Ok(Chunk::Read(got))
}

fn records(
    source: &mut Link,
    destination: &mut Link,
    tally: &mut Tally,
    desk: &mut Desk,
    now: Instant,
) -> Result<Chunk, Fail> {
    let outbox = &mut destination.outbox;
    // Not taken yet: the source's record comes first, which leaves the last buffer to payload. The other way round the
    // one that payload holds would keep the record from having one, again and again.
    if !outbox.has_room(&desk.pool) {
        return Ok(Chunk::Starved);
    }
    let mut tls = match &mut destination.transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some(tls),
    };
    let mut failed = None;
    let got = source.records(desk, now, |message, pool| {
        if tally.admit(message) {
            if let Err(fault) = put(tls.as_deref_mut(), outbox, message, tally.shield, pool) {
                failed = Some(fault);
                return Flow::Stop;
            }
        }
        if outbox.room(pool).is_ok_and(|room| room.len() >= ONE_MESSAGE) { Flow::More } else { Flow::Stop }
    });
    outbox.filled(0, &mut desk.pool);
    match failed {
        Some(fault) => Err(Fail::Destination(fault)),
        None => got.map(Chunk::Read).map_err(Fail::Source),
    }
}

/// Sends one message of payload towards an agent to whom nothing is on its way, past the pump. At most
/// [`MAX_MESSAGE`] bytes. Needs no buffer.
pub fn send_payload(to: &mut Link, message: &[u8], desk: &mut Desk, now: Instant) -> Result<(), Fault> {
    let (head, tail) = if to.is_plain() { (message, &[][..]) } else { wire::cut(message) };
    for piece in [head, tail].into_iter().filter(|piece| !piece.is_empty()) {
        to.send(piece, desk, now)?;
    }
    Ok(())
}

/// Adds one message to the outbox: as a record of its own where there is TLS.
fn put(tls: Option<&mut Tls>, outbox: &mut Outbox, message: &[u8], shield: bool, pool: &mut Pool) -> Result<(), Fault> {
    let no_room = |NoRoom| Fault::Io(std::io::ErrorKind::OutOfMemory.into());
    let Some(tls) = tls else { return outbox.append(message, pool).map_err(no_room) };
    let (head, tail) = if shield { wire::cut(message) } else { (message, &[][..]) };
    for piece in [head, tail] {
        if !piece.is_empty() {
            let count = tls.seal(piece, outbox.room(pool).map_err(no_room)?)?;
            outbox.filled(count, pool);
        }
    }
    Ok(())
}
