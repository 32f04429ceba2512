//! Chunks of a plain source for a plain sink, in the sink's own buffer; and without one, if none is free.

use super::super::framed::Framed;
use super::super::link::LinkError;
use super::{Flow, Incoming, Step, Transfer};
use crate::wire::v1;
use crate::wire::v2::frame::HEADER;
use std::io::ErrorKind;
use std::ops::Range;

/// Payload of a frame that is sent while no buffer is to be had: what the kernel does not take of it is kept without one.
const SMALL_FRAME: usize = 4096;

/// Where what goes out is, and whether all that came was legal: what stands before an illegal frame goes out.
type Laid = (Range<usize>, Result<(), LinkError>);

impl Transfer<'_> {
    /// Reads into the sink's buffer.
    pub(super) fn copy(&mut self) -> Step {
        if !self.sink.outbox.has_room(&self.ctx.pool) {
            return self.hand_over();
        }
        let (before, most) = (self.room_before(), self.most());
        let Ok(room) = self.sink.outbox.room(&mut self.ctx.pool) else { return Ok(self.starved()) };
        // Whoever speaks in frames is read up to the end of the next header: what follows it begins in the right place.
        let end = room.len().min(before.saturating_add(most));
        let read = self.source.read(&mut room[before..end], self.now);
        let came = read.as_ref().map_or(0, |(_, count)| *count);
        let (place, legal) = self.incoming.lay(self.to, room, before..before + came);
        self.sink.outbox.filled_at(place, &mut self.ctx.pool);
        legal.map_err(Flow::SourceFailed)?;
        read.map(|(got, _)| self.after_reading(got)).map_err(Flow::source_failed)
    }

    /// Bytes that are to be left free in front of what is read.
    fn room_before(&self) -> usize {
        match (&self.incoming.from, &self.to) {
            // In the middle of a frame or its header; else the frame's own header becomes the next one's.
            (Some(from), Some(_)) if from.is_within_frame() => HEADER,
            (None, Some(_)) => HEADER,
            _ => 0,
        }
    }

    /// Bytes that may be read at once.
    fn most(&self) -> usize {
        let most = self.to.map_or(usize::MAX - HEADER, Framed::largest);
        match &self.incoming.from {
            None => most,
            Some(from) if !from.is_within_frame() => most + HEADER,
            Some(from) if (1..=most).contains(&from.awaits()) => from.awaits() + HEADER,
            Some(_) => most,
        }
    }

    /// [`Transfer::copy`] without a buffer: only what the sink takes at once is taken from the source.
    ///
    /// A call more a chunk, and bytes that are not taken are copied again later; but readers that hold all buffers
    /// cannot stop the others.
    fn hand_over(&mut self) -> Step {
        if self.incoming.answers > 0 || self.incoming.from.is_some() || self.to.is_some() {
            return self.hand_over_frame();
        }
        let seen = match self.look(0..self.ctx.scratch.len()) {
            Ok(seen) => seen,
            Err(step) => return step,
        };
        let bytes = &self.ctx.scratch[..seen];
        let taken = match v1::beats(bytes, self.incoming.most_beats) > 0 {
            true => seen,
            false => self.sink.write_through(bytes, self.now).map_err(Flow::sink_failed)?,
        };
        self.incoming.admit(&bytes[..taken]);
        self.source.dismiss(taken, &mut self.ctx.nowhere, self.now).map_err(Flow::source_failed)?;
        Ok(if taken == seen { Flow::Again } else { Flow::Blocked })
    }

    /// The same where there are frames. One at a time, and small: of what goes out behind a header the kernel may take a
    /// part.
    fn hand_over_frame(&mut self) -> Step {
        if self.incoming.answers > 0 || !self.sink.may_write() {
            return Ok(self.starved());
        }
        let Some(to) = self.to else { return self.hand_over_payload() };
        let seen = match self.look(HEADER..HEADER + to.largest().min(SMALL_FRAME)) {
            Ok(seen) => seen,
            Err(step) => return step,
        };
        let came = HEADER..HEADER + seen;
        let (used, payload) = match &mut self.incoming.from {
            None => (seen, Some(seen)),
            Some(from) => from.next(&self.ctx.scratch[came]).map_err(Flow::SourceFailed)?,
        };
        if let Some(count) = payload {
            let start = used - count;
            self.ctx.scratch[start..start + HEADER].copy_from_slice(&to.header(count));
            self.incoming.payload += count as u64;
            let message = &self.ctx.scratch[start..HEADER + used];
            self.sink.send_without_buffer(message, self.now).map_err(Flow::sink_failed)?;
        }
        self.source.dismiss(used, &mut self.ctx.nowhere, self.now).map_err(Flow::source_failed)?;
        Ok(if self.sink.is_flushed() { Flow::Again } else { Flow::Blocked })
    }

    /// The same where payload comes in frames and goes out without.
    fn hand_over_payload(&mut self) -> Step {
        let Some(from) = &self.incoming.from else { return Ok(self.starved()) };
        let awaited = from.awaits();
        let most = if awaited > 0 { awaited } else { from.before_payload() };
        let seen = match self.look(0..most.min(self.ctx.scratch.len())) {
            Ok(seen) => seen,
            Err(step) => return step,
        };
        let bytes = &self.ctx.scratch[..seen];
        let taken = match awaited {
            0 => seen,
            _ => self.sink.write_through(bytes, self.now).map_err(Flow::sink_failed)?,
        };
        let Some(from) = &mut self.incoming.from else { return Ok(self.starved()) };
        let (used, payload) = from.next(&bytes[..taken]).map_err(Flow::SourceFailed)?;
        self.incoming.payload += payload.unwrap_or(0) as u64;
        self.source.dismiss(used, &mut self.ctx.nowhere, self.now).map_err(Flow::source_failed)?;
        Ok(if taken == seen { Flow::Again } else { Flow::Blocked })
    }

    /// How much the source has to be taken, as far as it fits this place of the scratch. `Err`: how the direction stands
    /// if there is nothing, or no way to look.
    fn look(&mut self, place: Range<usize>) -> Result<usize, Step> {
        match self.source.look(&mut self.ctx.scratch[place]) {
            Ok(None) => Err(Ok(Flow::WouldBlock)),
            Ok(Some(0)) => Err(Ok(Flow::Eof)),
            Ok(Some(seen)) => Ok(seen),
            Err(e) if e.kind() == ErrorKind::Unsupported => Err(Ok(self.starved())),
            Err(e) => Err(Err(Flow::source_failed(e))),
        }
    }
}

impl Incoming<'_> {
    /// Makes what goes out of what was read to `came`.
    fn lay(&mut self, to: Option<&Framed>, room: &mut [u8], came: Range<usize>) -> Laid {
        if self.from.is_some() {
            return self.lay_frames(to, room, came);
        }
        let payload = self.admit(&room[came.clone()]);
        let count = payload.len();
        if count < came.len() && count > 0 {
            // Rare: without TLS, with an answer to a heartbeat in front.
            let payload = payload.to_vec();
            room[came.start..][..count].copy_from_slice(&payload);
        }
        let place = match to {
            Some(to) if count > 0 => {
                room[..HEADER].copy_from_slice(&to.header(count));
                0..HEADER + count
            }
            _ => came.start..came.start + count,
        };
        (place, Ok(()))
    }

    /// The same where the source speaks in frames: payload moves only if it is in a frame behind another one.
    fn lay_frames(&mut self, to: Option<&Framed>, room: &mut [u8], came: Range<usize>) -> Laid {
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
            let header = to.map(|to| to.header(count));
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
