//! Reading from a [`Link`]: plain bytes, or the messages of TLS records.
//!
//! Edge-triggered readiness is only forgotten when the kernel says that there is nothing, or when less came than
//! was asked for. How the beginning of a record is kept, and whose: see `inbox`.

use super::{Input, Link, LinkError, Transport};
use crate::net::buffers::{IoContext, Pool};
use crate::net::inbox::ReadBuffer;
use crate::net::tls;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::time::Instant;

impl Link {
    /// Reads one message: a record, or over plain TCP up to `most` bytes.
    pub fn receive(
        &mut self,
        most: usize,
        ctx: &mut IoContext,
        now: Instant,
        mut message: impl FnMut(&[u8]),
    ) -> Result<Input, LinkError> {
        if let Transport::Tls(_) = self.transport {
            return self.records(ctx, now, |bytes, _| {
                message(bytes);
                ControlFlow::Break(())
            });
        }
        let most = most.min(ctx.scratch.len());
        let (got, count) = self.read(&mut ctx.scratch[..most], now)?;
        if count > 0 {
            message(&ctx.scratch[..count]);
        }
        Ok(got)
    }

    /// Whether bytes wait to be read, without reading them. Over TLS: a whole record, of whatever kind.
    pub fn waiting(&mut self, ctx: &mut IoContext) -> Result<Input, LinkError> {
        if !self.ready.readable {
            return Ok(Input::WouldBlock);
        }
        if self.has_ended() {
            return Ok(Input::Eof);
        }
        let most = if self.is_plain() { 1 } else { ctx.scratch.len() };
        let seen = self.look(&mut ctx.scratch[..most])?;
        match seen {
            Some(0) => Ok(Input::Eof),
            None => Ok(Input::WouldBlock),
            Some(_) if self.is_plain() => Ok(Input::Data),
            Some(count) => match tls::record_len(&ctx.scratch[..count])? {
                Some(_) => Ok(Input::Data),
                None => Ok(self.incomplete()),
            },
        }
    }

    /// Reads plain bytes.
    pub(in crate::net) fn read(&mut self, buf: &mut [u8], now: Instant) -> io::Result<(Input, usize)> {
        if !self.ready.readable {
            return Ok((Input::WouldBlock, 0));
        }
        loop {
            match self.stream.read(buf) {
                Ok(0) => {
                    self.note_fin()?;
                    return Ok((Input::Eof, 0));
                }
                Ok(count) => {
                    self.last_rx = now;
                    // Less than asked for: that was all, unless a FIN or urgent data stands behind it.
                    self.ready.readable = count == buf.len() || self.ready.fin || self.ready.urgent;
                    return Ok((Input::Data, count));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.ready.readable = false;
                    self.ready.urgent = false;
                    return Ok((Input::WouldBlock, 0));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// `None`: nothing there. `Some(0)`: the end.
    pub(in crate::net) fn look(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.peek(buf) {
                Ok(0) => {
                    self.note_fin()?;
                    return Ok(Some(0));
                }
                Ok(count) => return Ok(Some(count)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.ready.readable = false;
                    return Ok(None);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Nothing is left to be read: by the peer's own will, unless a write has found the connection broken.
    fn note_fin(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.finished = true;
        Ok(())
    }

    /// All that is there is the beginning of a record: the rest will raise an event, or never comes.
    fn incomplete(&mut self) -> Input {
        if self.ready.fin {
            return Input::Eof;
        }
        self.ready.readable = false;
        Input::WouldBlock
    }

    /// Hands out the messages of the records that are there, at most a scratch full, until `each` says stop.
    ///
    /// While the handshake lasts nothing is handed out, and the first record behind it is not touched.
    pub(in crate::net) fn records(
        &mut self,
        ctx: &mut IoContext,
        now: Instant,
        mut each: impl FnMut(&[u8], &mut Pool) -> ControlFlow<()>,
    ) -> Result<Input, LinkError> {
        if self.has_ended() {
            return Ok(Input::Eof);
        }
        if !self.may_read() {
            return Ok(Input::WouldBlock);
        }
        let read_buffer = self.inbox.open(self.trusted.then(|| self.record_want()), ctx);
        let taking = matches!(read_buffer, ReadBuffer::Buffer { .. });
        let gathered = self.gather(&read_buffer, ctx, now);
        let seen = read_buffer.kept() + gathered.as_ref().map_or(0, |(_, count)| *count);
        let (used, taken) = self.take_records(seen, ctx, &mut each);
        if used > 0 || read_buffer.kept() == 0 {
            self.moved_in = now;
        }
        let stopped = matches!(taken, Ok(Step::Stopped));
        self.inbox = read_buffer.keep(&ctx.scratch[used..seen], stopped, &mut ctx.pool);
        if !taking {
            self.dismiss(used, &mut ctx.nowhere, now)?;
        }
        let sent = self.send_reply(ctx, now);
        let (step, (got, _)) = (taken?, gathered?);
        sent?;
        let got = match step {
            Step::Closed => return Ok(Input::Eof),
            Step::Stopped => Input::Data,
            Step::Incomplete if got == Input::Eof => Input::Eof,
            Step::Incomplete if taking && self.ready.readable => Input::Data,
            Step::Incomplete if taking => Input::WouldBlock,
            // The scratch was full, or whole records stand before a FIN: there is more.
            Step::Incomplete if seen == ctx.scratch.len() || (used == seen && self.ready.fin) => Input::Data,
            Step::Incomplete if self.trusted && used < seen && !self.ready.fin => Input::Starved,
            Step::Incomplete => self.incomplete(),
        };
        if got == Input::Eof && self.is_open() { Err(LinkError::Truncated) } else { Ok(got) }
    }

    /// Puts what has come behind what was kept: taken from the kernel if there is a read_buffer, else only looked at.
    fn gather(&mut self, read_buffer: &ReadBuffer, ctx: &mut IoContext, now: Instant) -> io::Result<(Input, usize)> {
        let room = &mut ctx.scratch[read_buffer.kept()..];
        match read_buffer {
            ReadBuffer::Buffer { .. } if room.is_empty() => Ok((Input::Data, 0)),
            ReadBuffer::Buffer { .. } => self.read(room, now),
            ReadBuffer::None => Ok(match self.look(room)? {
                None => (Input::WouldBlock, 0),
                Some(0) => (Input::Eof, 0),
                Some(count) => (Input::Data, count),
            }),
        }
    }

    fn take_records(
        &mut self,
        seen: usize,
        ctx: &mut IoContext,
        each: &mut impl FnMut(&[u8], &mut Pool) -> ControlFlow<()>,
    ) -> (usize, Result<Step, LinkError>) {
        let Transport::Tls(tls) = &mut self.transport else { return (0, Ok(Step::Incomplete)) };
        let IoContext { scratch, pool, reply, .. } = ctx;
        let mut used = 0;
        loop {
            let length = match tls::record_len(&scratch[used..seen]) {
                Ok(Some(length)) => length,
                Ok(None) => return (used, Ok(Step::Incomplete)),
                Err(e) => return (used, Err(e.into())),
            };
            let handshaking = tls.is_handshaking();
            let mut flow = ControlFlow::Continue(());
            let record = &mut scratch[used..used + length];
            let taken = tls.take_record(record, reply, |message| flow = each(message, pool));
            used += length;
            if let Err(e) = taken {
                return (used, Err(e.into()));
            }
            if tls.peer_has_closed() {
                return (used, Ok(Step::Closed));
            }
            if flow.is_break() || (handshaking && !tls.is_handshaking()) {
                return (used, Ok(Step::Stopped));
            }
        }
    }

    /// Takes bytes from the kernel that have been looked at and dealt with.
    pub(in crate::net) fn dismiss(&mut self, count: usize, nowhere: &mut Vec<u8>, now: Instant) -> io::Result<()> {
        if count > 0 {
            self.last_rx = now;
            discard_all(count, |most| self.stream.discard(most, nowhere))?;
        }
        Ok(())
    }

    /// Throws away a scratch full of what the peer still sends. Returns how much it was.
    pub fn drain(&mut self, ctx: &mut IoContext, now: Instant) -> io::Result<(Input, usize)> {
        self.inbox.clear(&mut ctx.pool);
        self.read(&mut ctx.scratch, now)
    }
}

/// Discards exactly `count` bytes, which are there. What was dealt with and stayed would be dealt with twice: where
/// that cannot be helped the connection is broken.
fn discard_all(mut count: usize, mut discard: impl FnMut(usize) -> io::Result<usize>) -> io::Result<()> {
    while count > 0 {
        match discard(count) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(gone) => count = count.saturating_sub(gone),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

enum Step {
    Incomplete,
    Stopped,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_discard_goes_on_until_nothing_is_left_to_be_repeated() {
        let mut asked = Vec::new();
        let mut answers = vec![Ok(3), Err(ErrorKind::Interrupted.into()), Ok(6), Ok(1)].into_iter();
        let discard = |most| {
            asked.push(most);
            answers.next().expect("no more calls")
        };
        discard_all(10, discard).unwrap();
        assert_eq!(asked, [10, 7, 7, 1]);
    }

    #[test]
    fn bytes_that_cannot_be_discarded_break_the_connection() {
        for end in [Ok(0), Err(ErrorKind::WouldBlock.into()), Err(ErrorKind::ConnectionReset.into())] {
            let mut answers = vec![Ok(3), end].into_iter();
            let error = discard_all(10, |_| answers.next().expect("no more calls")).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::WouldBlock);
        }
    }
}
