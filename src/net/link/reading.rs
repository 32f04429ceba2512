//! Reading from a [`Link`]: plain bytes, or the messages of TLS records.
//!
//! Edge-triggered readiness is only forgotten when the kernel says that there is nothing, or when less came than
//! was asked for. How the beginning of a record is kept, and whose: see `inbox`.

use super::{Fault, Flow, Got, Link, Transport};
use crate::net::buffers::{Desk, Pool};
use crate::net::inbox::Lease;
use crate::net::tls;
use std::io::{self, ErrorKind};
use std::time::Instant;

impl Link {
    /// Reads one message: a record, or over plain TCP up to `most` bytes.
    pub fn receive(
        &mut self,
        most: usize,
        desk: &mut Desk,
        now: Instant,
        mut message: impl FnMut(&[u8]),
    ) -> Result<Got, Fault> {
        if let Transport::Tls(_) = self.transport {
            return self.records(desk, now, |bytes, _| {
                message(bytes);
                Flow::Stop
            });
        }
        let most = most.min(desk.scratch.len());
        let (got, count) = self.read(&mut desk.scratch[..most], now)?;
        if count > 0 {
            message(&desk.scratch[..count]);
        }
        Ok(got)
    }

    /// Whether bytes wait to be read, without reading them. Over TLS: a whole record, of whatever kind.
    pub fn waiting(&mut self, desk: &mut Desk) -> Result<Got, Fault> {
        if !self.ready.readable {
            return Ok(Got::Dry);
        }
        if self.has_ended() {
            return Ok(Got::End);
        }
        let most = if self.is_plain() { 1 } else { desk.scratch.len() };
        let seen = self.look(&mut desk.scratch[..most])?;
        match seen {
            Some(0) => Ok(Got::End),
            None => Ok(Got::Dry),
            Some(_) if self.is_plain() => Ok(Got::Some),
            Some(count) => match tls::record_len(&desk.scratch[..count])? {
                Some(_) => Ok(Got::Some),
                None => Ok(self.incomplete()),
            },
        }
    }

    /// Reads plain bytes.
    pub(in crate::net) fn read(&mut self, buf: &mut [u8], now: Instant) -> io::Result<(Got, usize)> {
        if !self.ready.readable {
            return Ok((Got::Dry, 0));
        }
        loop {
            match self.stream.read(buf) {
                Ok(0) => {
                    self.note_fin()?;
                    return Ok((Got::End, 0));
                }
                Ok(count) => {
                    self.heard = now;
                    // Less than asked for: that was all, unless a FIN or urgent data stands behind it.
                    self.ready.readable = count == buf.len() || self.ready.fin || self.ready.urgent;
                    return Ok((Got::Some, count));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.ready.readable = false;
                    self.ready.urgent = false;
                    return Ok((Got::Dry, 0));
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
    fn incomplete(&mut self) -> Got {
        if self.ready.fin {
            return Got::End;
        }
        self.ready.readable = false;
        Got::Dry
    }

    /// Hands out the messages of the records that are there, at most a desk full, until `each` says stop.
    ///
    /// While the handshake lasts nothing is handed out, and the first record behind it is not touched.
    pub(in crate::net) fn records(
        &mut self,
        desk: &mut Desk,
        now: Instant,
        mut each: impl FnMut(&[u8], &mut Pool) -> Flow,
    ) -> Result<Got, Fault> {
        if self.has_ended() {
            return Ok(Got::End);
        }
        if !self.may_read() {
            return Ok(Got::Dry);
        }
        let lease = self.inbox.open(self.trusted.then(|| self.record_want()), desk);
        let taking = matches!(lease, Lease::Buffer { .. });
        let gathered = self.gather(&lease, desk, now);
        let seen = lease.kept() + gathered.as_ref().map_or(0, |(_, count)| *count);
        let (used, taken) = self.take_records(seen, desk, &mut each);
        if used > 0 || lease.kept() == 0 {
            self.moved_in = now;
        }
        let stopped = matches!(taken, Ok(Step::Stopped));
        self.inbox = lease.keep(&desk.scratch[used..seen], stopped, &mut desk.pool);
        if !taking {
            self.dismiss(used, &mut desk.nowhere, now)?;
        }
        let sent = self.send_reply(desk, now);
        let (step, (got, _)) = (taken?, gathered?);
        sent?;
        let got = match step {
            Step::Closed => return Ok(Got::End),
            Step::Stopped => Got::Some,
            Step::Incomplete if got == Got::End => Got::End,
            Step::Incomplete if taking && self.ready.readable => Got::Some,
            Step::Incomplete if taking => Got::Dry,
            // The desk was full, or whole records stand before a FIN: there is more.
            Step::Incomplete if seen == desk.scratch.len() || (used == seen && self.ready.fin) => Got::Some,
            Step::Incomplete if self.trusted && used < seen && !self.ready.fin => Got::Starved,
            Step::Incomplete => self.incomplete(),
        };
        if got == Got::End && self.is_open() { Err(Fault::Truncated) } else { Ok(got) }
    }

    /// Puts what has come behind what was kept: taken from the kernel if there is a lease, else only looked at.
    fn gather(&mut self, lease: &Lease, desk: &mut Desk, now: Instant) -> io::Result<(Got, usize)> {
        let room = &mut desk.scratch[lease.kept()..];
        match lease {
            Lease::Buffer { .. } if room.is_empty() => Ok((Got::Some, 0)),
            Lease::Buffer { .. } => self.read(room, now),
            Lease::None => Ok(match self.look(room)? {
                None => (Got::Dry, 0),
                Some(0) => (Got::End, 0),
                Some(count) => (Got::Some, count),
            }),
        }
    }

    fn take_records(
        &mut self,
        seen: usize,
        desk: &mut Desk,
        each: &mut impl FnMut(&[u8], &mut Pool) -> Flow,
    ) -> (usize, Result<Step, Fault>) {
        let Transport::Tls(tls) = &mut self.transport else { return (0, Ok(Step::Incomplete)) };
        let Desk { scratch, pool, reply, .. } = desk;
        let mut used = 0;
        loop {
            let length = match tls::record_len(&scratch[used..seen]) {
                Ok(Some(length)) => length,
                Ok(None) => return (used, Ok(Step::Incomplete)),
                Err(e) => return (used, Err(e.into())),
            };
            let handshaking = tls.is_handshaking();
            let mut flow = Flow::More;
            let record = &mut scratch[used..used + length];
            let taken = tls.take_record(record, reply, |message| flow = each(message, pool));
            used += length;
            if let Err(e) = taken {
                return (used, Err(e.into()));
            }
            if tls.peer_has_closed() {
                return (used, Ok(Step::Closed));
            }
            if flow == Flow::Stop || (handshaking && !tls.is_handshaking()) {
                return (used, Ok(Step::Stopped));
            }
        }
    }

    /// Takes bytes from the kernel that have been looked at and dealt with.
    pub(in crate::net) fn dismiss(&mut self, count: usize, nowhere: &mut Vec<u8>, now: Instant) -> io::Result<()> {
        if count > 0 {
            self.heard = now;
            discard_all(count, |most| self.stream.discard(most, nowhere))?;
        }
        Ok(())
    }

    /// Throws away a desk full of what the peer still sends. Returns how much it was.
    pub fn drain(&mut self, desk: &mut Desk, now: Instant) -> io::Result<(Got, usize)> {
        self.inbox.clear(&mut desk.pool);
        self.read(&mut desk.scratch, now)
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
