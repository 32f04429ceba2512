//! A line and a local connection that are joined.
//!
//! Bytes go both ways until one side ends. What it sent is delivered, and then the other side is closed too. The
//! one exception is a tunnel's client that closes its sending side, which may still be waiting for its answer.

use super::heartbeat::sift;
use super::line::{GLANCE, begin_payload};
use super::state::{Line, State};
use super::{Agent, Near};
use crate::limits::{HALF_CLOSED, HALF_CLOSED_CONTENDED};
use crate::net::closing::Cause;
use crate::net::link::{Fault, Got};
use crate::net::pump::{End, Fail, Failed, Pumped, Then, pump};
use crate::net::reactor::Key;
use std::time::Duration;

/// How one direction stands after its turn.
enum Direction {
    Open,
    /// The source has ended, everything it sent is on its way.
    Ended,
    /// The source has broken off, everything that could be read of it is on its way. It may still listen.
    Truncated,
    /// The same, and the connection is gone.
    Broken,
    /// The destination takes nothing any more. What it has sent may still be there to be read.
    Deaf,
}

impl Agent {
    /// Both sides are there: payload flows from here on.
    pub(super) fn join(&mut self, key: Key, line: Line, local: Key) {
        self.set_state(key, State::Joined { line, local });
        for key in [key, local] {
            if let Some((socket, _)) = self.reactor.get_mut(key) {
                socket.link.set_abortive(true);
            }
            self.reactor.again(key);
        }
    }

    /// Moves what there is to move between a line and its local connection.
    pub(super) fn relay(&mut self, line: Key, local: Key) {
        match self.reactor.get(line).map(|socket| &socket.state) {
            Some(State::Joined { .. }) => {}
            Some(State::Calling { .. }) => return self.look_after_client(local),
            // What the service says first waits until the other end of the tunnel listens.
            _ => return,
        }
        let inward = self.inward(line, local);
        let half_closed = matches!(self.reactor.get(local), Some(s) if matches!(s.state, State::HalfClosed { .. }));
        let outward = if half_closed { Direction::Open } else { self.outward(local, line) };
        match (inward, outward) {
            (Direction::Broken, _) => self.end(line, Cause::Broken(line)),
            (Direction::Truncated, _) => self.end(line, Cause::Truncated(line)),
            (Direction::Ended, _) => self.end(line, Cause::Ended),
            (_, Direction::Broken) => self.end(line, Cause::Broken(local)),
            (_, Direction::Truncated) => self.end(line, Cause::Truncated(local)),
            // It takes nothing any more, and all that it sent is on its way.
            (Direction::Deaf, Direction::Ended) => self.end(line, Cause::Ended),
            (Direction::Deaf, _) => self.end_when_read(local),
            (_, Direction::Deaf) => self.end_when_read(line),
            (_, Direction::Ended) => self.local_ended(line, local),
            _ => self.end_if_idle_at_stop(line, local),
        }
    }

    /// `deaf` takes nothing any more. What it has sent before is delivered first: an answer that comes before the whole
    /// question was read, say.
    pub(super) fn end_when_read(&mut self, deaf: Key) {
        let unread = self.reactor.get(deaf).is_some_and(|s| s.link.may_read() && !s.link.has_ended());
        if !unread {
            self.end(deaf, Cause::Broken(deaf));
        }
    }

    /// From the Connector to the local side.
    fn inward(&mut self, line: Key, local: Key) -> Direction {
        let awaits = |state: &State| state.line().is_some_and(|l| l.marked.is_none() && l.pulse.awaited() > 0);
        match self.reactor.get(line) {
            Some(socket) if !socket.link.is_plain() => self.pass_on((line, End::Wire), (local, End::Open)),
            Some(socket) if awaits(&socket.state) => self.sift_inward(line, local),
            _ => self.pass_on((line, End::Open), (local, End::Open)),
        }
    }

    /// From the local side to the Connector.
    fn outward(&mut self, local: Key, line: Key) -> Direction {
        let now = self.reactor.now;
        if let Some(socket) = self.reactor.get(line).filter(|socket| socket.link.is_plain()) {
            let unmarked = socket.state.line().filter(|line| line.marked.is_none());
            if let Some(until) = unmarked.and_then(|line| line.pulse.hold(now)) {
                self.reactor.wake_by(until);
                return Direction::Open;
            }
        }
        match self.begin_payload(local, line) {
            Ok(true) => {}
            Ok(false) => return Direction::Open,
            Err(direction) => return direction,
        }
        self.pass_on((local, End::Open), (line, End::Wire))
    }

    /// Says the mark of a line before its first payload, once there is some. False: it cannot be said now.
    fn begin_payload(&mut self, local: Key, line: Key) -> Result<bool, Direction> {
        let now = self.reactor.now;
        let Some((source, destination, desk)) = self.reactor.pair_mut(local, line) else { return Ok(false) };
        let State::Joined { line: its, .. } = &mut destination.state else { return Ok(true) };
        // What is not there yet will raise an event, and the pump does not find it before.
        let is_due = its.marked.as_ref().is_some_and(|marked| !marked.sends_payload());
        if !is_due || source.link.waiting(desk).map_err(|fault| Direction::of_source(&fault))? != Got::Some {
            return Ok(true);
        }
        if destination.link.is_flushed() && !destination.link.can_send(&desk.pool) {
            let want = destination.link.payload_want();
            self.reactor.note_hunger(local, Some(want));
            return Ok(false);
        }
        begin_payload(&mut destination.link, its, desk, now).map_err(|_| Direction::Deaf)?;
        Ok(true)
    }

    /// One direction, one turn.
    fn pass_on(&mut self, from: (Key, End), to: (Key, End)) -> Direction {
        let now = self.reactor.now;
        let Some((source, destination, desk)) = self.reactor.pair_mut(from.0, to.0) else { return Direction::Broken };
        let pumped = pump((&mut source.link, from.1), (&mut destination.link, to.1), desk, now);
        let payload = match &pumped {
            Ok(Pumped { payload, .. }) | Err(Failed { payload, .. }) => *payload,
        };
        if let (Ok(Pumped { beats, .. }), Some(line)) = (&pumped, source.state.line_mut()) {
            line.pulse.answered(*beats, now);
        }
        if payload > 0 {
            self.note_payload(from.0, to.0);
        }
        let then = match pumped {
            Ok(pumped) => pumped.then,
            Err(Failed { fail: Fail::Source(fault), .. }) => return Direction::of_source(&fault),
            Err(Failed { fail: Fail::Destination(_), .. }) => return Direction::Deaf,
        };
        self.reactor.note_hunger(from.0, then.wants());
        match then {
            Then::Ended => return Direction::Ended,
            Then::Again => self.reactor.again(from.0),
            Then::Starved(_) | Then::Dry | Then::Full => {}
        }
        Direction::Open
    }

    fn note_payload(&mut self, from: Key, to: Key) {
        let now = self.reactor.now;
        let Some((source, destination, _)) = self.reactor.pair_mut(from, to) else { return };
        if let State::HalfClosed { since, .. } = &mut destination.state {
            *since = now;
        }
        for state in [&mut source.state, &mut destination.state] {
            if let Some(line) = state.line_mut() {
                line.used = true;
            }
        }
    }

    /// The same as passing on while an answer to a heartbeat may have run together with payload: plain TCP only.
    fn sift_inward(&mut self, line: Key, local: Key) -> Direction {
        let now = self.reactor.now;
        let Some((source, destination, desk)) = self.reactor.pair_mut(line, local) else { return Direction::Broken };
        match destination.link.flush(&mut desk.pool, now) {
            Ok(true) => {}
            Ok(false) => return Direction::Open,
            Err(_) => return Direction::Deaf,
        }
        let want = destination.link.payload_want();
        if !desk.pool.admits(want) {
            self.reactor.note_hunger(line, Some(want));
            return Direction::Open;
        }
        let Some(pulse) = source.state.line_mut().map(|line| &mut line.pulse) else { return Direction::Broken };
        let mut bytes = Vec::new();
        let got = source.link.receive(GLANCE, desk, now, |message| {
            let (payload, answers) = sift(message, pulse.awaited());
            pulse.answered(answers, now);
            bytes.extend_from_slice(payload);
        });
        let sent = if bytes.is_empty() { Ok(()) } else { destination.link.send(&bytes, desk, now) };
        if !bytes.is_empty() {
            self.note_payload(line, local);
        }
        self.after_sifting(line, got, sent)
    }

    fn after_sifting(&mut self, line: Key, got: Result<Got, Fault>, sent: Result<(), Fault>) -> Direction {
        self.reactor.note_hunger(line, None);
        match (got, sent) {
            (_, Err(_)) => Direction::Deaf,
            (Err(fault), _) => Direction::of_source(&fault),
            (Ok(Got::End), _) => Direction::Ended,
            // Plain TCP never waits for the rest of a record.
            (Ok(Got::Dry | Got::Starved), _) => Direction::Open,
            (Ok(Got::Some), _) => {
                self.reactor.again(line);
                Direction::Open
            }
        }
    }

    /// The local side will send no more.
    fn local_ended(&mut self, line: Key, local: Key) {
        match self.near {
            Near::Clients(_) => {
                let since = self.reactor.now;
                self.set_state(local, State::HalfClosed { line, since });
                self.reactor.wake_by(since + self.patience());
            }
            Near::Service(_) => self.end(line, Cause::Ended),
        }
    }

    /// How long the other end of a half-closed session may be silent.
    pub(super) fn patience(&self) -> Duration {
        let contended = self.reactor.iter().any(|(_, socket)| matches!(socket.state, State::Waiting { .. }));
        if contended || self.ending.is_some() { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    /// The other end has been silent for long enough, unless it is the client who is slow.
    pub(super) fn end_half_closed(&mut self, client: Key, line: Key) {
        let unread = self.reactor.get(line).is_some_and(|socket| socket.link.may_read());
        let unsent = self.reactor.get(client).is_some_and(|socket| !socket.link.is_flushed());
        if !unread && !unsent {
            let cause = if self.ending.is_some() { Cause::Interrupted } else { Cause::Ended };
            self.end(line, cause);
        }
    }

    /// While the agent ends, a session with nothing in flight is over. A half-closed one waits for its answer, but not
    /// for long.
    fn end_if_idle_at_stop(&mut self, line: Key, local: Key) {
        let quiet = |key| self.reactor.get(key).is_some_and(|s| !s.link.may_read() && s.link.is_flushed());
        let awaits = self.reactor.get(local).is_some_and(|s| matches!(s.state, State::HalfClosed { .. }));
        if self.ending.is_some() && !awaits && quiet(line) && quiet(local) {
            self.end(line, Cause::Interrupted);
        }
    }
}

impl Direction {
    /// The source cannot be read from any more.
    fn of_source(fault: &Fault) -> Self {
        match fault {
            Fault::Io(_) => Self::Broken,
            Fault::Tls(_) | Fault::Truncated => Self::Truncated,
        }
    }
}
