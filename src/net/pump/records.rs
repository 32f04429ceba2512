//! Chunks where there is TLS on either side: a record at a time, and what is sealed again behind a frame's header.
//!
//! What has been taken in and is in a buffer goes on even if there is none for what goes out, a message at a time.
//! Otherwise those who have a buffer with half of what they need would wait for each other.

use super::super::buffers::{IoContext, Pool};
use super::super::framed::Framed;
use super::super::link::{Link, LinkError};
use super::super::outbox::{NoRoom, Outbox};
use super::super::tls::{MAX_MESSAGE, MAX_SEALED, Tls};
use super::{Flow, Incoming, Step, Transfer};
use crate::wire::v1;
use crate::wire::v2::frame::{HEADER, IN_A_RECORD};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::Instant;

/// Room that one more message may need, cut in two (see [`v1::cut`]) and sealed.
const ONE_MESSAGE: usize = MAX_SEALED + 256;
/// Bytes that are read at once in order to be sealed: they fit one buffer afterwards.
const TO_SEAL: usize = 3 * MAX_MESSAGE;

impl Transfer<'_> {
    /// Reads plain bytes and seals them in records as large as allowed.
    pub(super) fn seal(&mut self) -> Step {
        // What has been read must have somewhere to go.
        if !self.sink.outbox.has_room(&self.ctx.pool) {
            return Ok(self.starved());
        }
        let (before, each) = if self.to.is_some() { (HEADER, IN_A_RECORD) } else { (0, MAX_MESSAGE) };
        let place = before..before + TO_SEAL / MAX_MESSAGE * each;
        let (got, count) = self.source.read(&mut self.ctx.scratch[place], self.now).map_err(Flow::source_failed)?;
        if self.incoming.from.is_some() {
            let message = self.ctx.scratch[before..before + count].to_vec();
            self.deliver(&message)?;
        } else if let Some(to) = self.to {
            self.incoming.payload += count as u64;
            self.seal_frames(to, count).map_err(Flow::SinkFailed)?;
        } else {
            let (tls, outbox) = (self.sink.transport.tls(), &mut self.sink.outbox);
            let mut out = Out { to: None, tls, outbox, is_starved: false, shield: self.shield, frame: &mut [] };
            for message in self.incoming.admit(&self.ctx.scratch[..count]).chunks(MAX_MESSAGE) {
                out.add(message, &mut self.ctx.pool).map_err(Flow::SinkFailed)?;
            }
        }
        Ok(self.after_reading(got))
    }

    /// Seals `count` bytes of the scratch, which begin behind the place of a header.
    fn seal_frames(&mut self, to: &Framed, count: usize) -> Result<(), LinkError> {
        let mut at = 0;
        while at < count {
            let length = (count - at).min(IN_A_RECORD.min(to.largest()));
            // In the place of the last bytes of what has been sealed before.
            let frame = &mut self.ctx.scratch[at..at + HEADER + length];
            frame[..HEADER].copy_from_slice(&to.header(length));
            put(self.sink.transport.tls(), &mut self.sink.outbox, frame, false, Some(&mut self.ctx.pool))?;
            at += length;
        }
        Ok(())
    }

    /// What came behind the end of the session before.
    pub(super) fn kept(&mut self) -> Step {
        if self.must_wait() {
            return Ok(self.starved());
        }
        let bytes = self.incoming.from.as_mut().map(|from| from.take_kept()).unwrap_or_default();
        self.deliver(&bytes)?;
        self.settle()?;
        Ok(Flow::Again)
    }

    /// There is no buffer for what goes out, and none is given back by going on.
    fn must_wait(&self) -> bool {
        !self.sink.outbox.has_room(&self.ctx.pool) && !self.source.keeps_input()
    }

    /// What goes out without a buffer, and is not taken at once, gets the one in which it came: so there are never more of
    /// those than buffers.
    fn settle(&mut self) -> Result<(), Flow> {
        if !self.sink.outbox.holds_rest() || self.flush()? || self.source.keeps_input() {
            return Ok(());
        }
        self.sink.outbox.settle(&mut self.ctx.pool);
        Ok(())
    }

    /// Passes on what is in these bytes; rare, and not where much is moved.
    fn deliver(&mut self, bytes: &[u8]) -> Result<(), Flow> {
        let Link { transport, outbox, .. } = &mut *self.sink;
        let is_starved = !outbox.has_room(&self.ctx.pool);
        let mut out = Out {
            to: self.to,
            tls: transport.tls(),
            outbox,
            is_starved,
            shield: self.shield,
            frame: &mut self.ctx.frame,
        };
        let result = self.incoming.pass_on(bytes, &mut out, &mut self.ctx.pool);
        self.sink.outbox.filled(0, &mut self.ctx.pool);
        result.map(drop)
    }

    /// One record in, one record out; or the message of each record, appended.
    pub(super) fn records(&mut self) -> Step {
        // Not taken yet: the source's record comes first, which leaves the last buffer to payload. The other way round the
        // one that payload holds would keep the record from having one, again and again.
        if self.must_wait() {
            return Ok(self.starved());
        }
        let is_starved = !self.sink.outbox.has_room(&self.ctx.pool);
        let mut frame = std::mem::take(&mut self.ctx.frame);
        let Link { transport, outbox, .. } = &mut *self.sink;
        let mut out =
            Out { to: self.to, tls: transport.tls(), outbox, is_starved, shield: self.shield, frame: &mut frame };
        let mut failed = None;
        let got = self.source.records(self.ctx, self.now, |message, pool| {
            self.incoming.pass_on(message, &mut out, pool).unwrap_or_else(|fault| {
                failed = Some(fault);
                ControlFlow::Break(())
            })
        });
        self.ctx.frame = frame;
        self.sink.outbox.filled(0, &mut self.ctx.pool);
        self.settle()?;
        match failed {
            Some(fault) => Err(fault),
            None => got.map(|got| self.after_reading(got)).map_err(Flow::SourceFailed),
        }
    }
}

impl Incoming<'_> {
    /// Passes the payload of one message on. Breaks when there is not room for another one.
    fn pass_on(&mut self, message: &[u8], out: &mut Out<'_>, pool: &mut Pool) -> Result<ControlFlow<()>, Flow> {
        let mut flow = out.room_for_more(pool);
        let Some(from) = &mut self.from else {
            let payload = self.admit(message);
            if !payload.is_empty() {
                out.add(payload, pool).map_err(Flow::SinkFailed)?;
                flow = out.room_for_more(pool);
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
            out.add(&message[at - count..at], pool).map_err(Flow::SinkFailed)?;
            flow = out.room_for_more(pool);
        }
        from.keep(&message[at..]);
        Ok(flow)
    }
}

/// Where messages go: into the sink's buffer, in frames where it speaks in those, and as records where it has TLS.
struct Out<'o> {
    to: Option<&'o Framed>,
    tls: Option<&'o mut Tls>,
    outbox: &'o mut Outbox,
    /// There is no buffer for it: one message goes out without.
    is_starved: bool,
    shield: bool,
    /// Where a frame is put together.
    frame: &'o mut [u8],
}

impl Out<'_> {
    fn room_for_more(&mut self, pool: &mut Pool) -> ControlFlow<()> {
        if self.is_starved {
            return if self.outbox.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        match self.outbox.room(pool) {
            Ok(room) if room.len() >= ONE_MESSAGE => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    /// Adds one message of payload.
    fn add(&mut self, message: &[u8], pool: &mut Pool) -> Result<(), LinkError> {
        let mut pool = (!self.is_starved).then_some(pool);
        let Some(to) = self.to else {
            return put(self.tls.as_deref_mut(), self.outbox, message, self.shield, pool);
        };
        for payload in message.chunks(to.largest().min(IN_A_RECORD)) {
            let length = HEADER + payload.len();
            self.frame[..HEADER].copy_from_slice(&to.header(payload.len()));
            self.frame[HEADER..length].copy_from_slice(payload);
            put(self.tls.as_deref_mut(), self.outbox, &self.frame[..length], false, pool.as_deref_mut())?;
        }
        Ok(())
    }
}

/// Adds one message to the outbox: as a record of its own where there is TLS. Without a pool it goes out without a buffer.
fn put(
    mut tls: Option<&mut Tls>,
    outbox: &mut Outbox,
    message: &[u8],
    shield: bool,
    mut pool: Option<&mut Pool>,
) -> Result<(), LinkError> {
    let no_room = |NoRoom| LinkError::Io(ErrorKind::OutOfMemory.into());
    let (head, tail) = if shield && tls.is_some() { v1::cut(message) } else { (message, &[][..]) };
    for piece in [head, tail].into_iter().filter(|piece| !piece.is_empty()) {
        match (&mut tls, &mut pool) {
            (None, None) => outbox.append_without_buffer(piece).map_err(no_room)?,
            (None, Some(pool)) => outbox.append(piece, pool).map_err(no_room)?,
            (Some(tls), None) => {
                let mut sealed = [0; MAX_SEALED];
                let count = tls.seal(piece, &mut sealed)?;
                outbox.append_without_buffer(&sealed[..count]).map_err(no_room)?;
            }
            (Some(tls), Some(pool)) => {
                let count = tls.seal(piece, outbox.room(pool).map_err(no_room)?)?;
                outbox.filled(count, pool);
            }
        }
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
