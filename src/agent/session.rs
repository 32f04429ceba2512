//! A line and a local connection that are joined.
//!
//! Bytes go both ways until one side ends. What it sent is delivered, and then the other side is closed too. The
//! one exception is a tunnel's client that closes its sending side, which may still be waiting for its answer.

use super::heartbeat::sift;
use super::line::GLANCE;
use super::state::State;
use super::{Agent, Near};
use crate::limits::{HALF_CLOSED, HALF_CLOSED_CONTENDED};
use crate::net::buffers::Purpose;
use crate::net::link::{Fault, Got};
use crate::net::pump::{End, Fail, Failed, Pumped, Then, pump};
use crate::net::reactor::Key;
use std::time::Duration;

/// How one direction stands after its turn.
enum Direction {
    Open,
    /// The source has ended, everything it sent is on its way.
    Ended,
    /// The connection with this key is broken.
    Broken(Key),
}

impl Agent {
    /// Moves what there is to move between a line and its local connection.
    pub(super) fn relay(&mut self, line: Key, local: Key) {
        match self.reactor.get(line).map(|socket| &socket.state) {
            Some(State::Joined { .. }) => {}
            Some(State::Calling { .. }) => return self.look_after_client(local),
            // What the service says first waits until the other end of the tunnel listens.
            _ => return,
        }
        let inward = self.inward(line, local);
        if let Direction::Broken(key) = inward {
            return self.end(line, Some(key));
        }
        let half_closed = matches!(self.reactor.get(local), Some(s) if matches!(s.state, State::HalfClosed { .. }));
        let outward = if half_closed { Direction::Open } else { self.outward(local, line) };
        match (inward, outward) {
            (_, Direction::Broken(key)) => self.end(line, Some(key)),
            (Direction::Ended, _) => self.end(line, None),
            (_, Direction::Ended) => self.local_ended(line, local),
            _ => self.end_if_idle_at_stop(line, local),
        }
    }

    /// From the Connector to the local side.
    fn inward(&mut self, line: Key, local: Key) -> Direction {
        let awaits = |state: &State| state.line().is_some_and(|line| line.pulse.awaited() > 0);
        match self.reactor.get(line) {
            Some(socket) if socket.link.is_plain() && awaits(&socket.state) => self.sift_inward(line, local),
            _ => self.pass_on((line, End::Wire), (local, End::Open)),
        }
    }

    /// From the local side to the Connector.
    fn outward(&mut self, local: Key, line: Key) -> Direction {
        let now = self.reactor.now;
        if let Some(socket) = self.reactor.get(line).filter(|socket| socket.link.is_plain()) {
            if let Some(until) = socket.state.line().and_then(|line| line.pulse.hold(now)) {
                self.reactor.wake_by(until);
                return Direction::Open;
            }
        }
        self.pass_on((local, End::Open), (line, End::Wire))
    }

    /// One direction, one turn.
    fn pass_on(&mut self, from: (Key, End), to: (Key, End)) -> Direction {
        let now = self.reactor.now;
        let Some((source, destination, desk)) = self.reactor.pair_mut(from.0, to.0) else {
            return Direction::Broken(from.0);
        };
        let Pumped { payload, beats, then } =
            match pump((&mut source.link, from.1), (&mut destination.link, to.1), desk, now) {
                Ok(pumped) => pumped,
                Err(Failed { fail: Fail::Source(_), .. }) => return Direction::Broken(from.0),
                Err(Failed { fail: Fail::Destination(_), .. }) => return Direction::Broken(to.0),
            };
        if let Some(line) = source.state.line_mut() {
            line.pulse.answered(beats, now);
        }
        if payload > 0 {
            self.note_payload(from.0, to.0);
        }
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
        let Some((source, destination, desk)) = self.reactor.pair_mut(line, local) else {
            return Direction::Broken(line);
        };
        match destination.link.flush(&mut desk.pool, now) {
            Ok(true) => {}
            Ok(false) => return Direction::Open,
            Err(_) => return Direction::Broken(local),
        }
        if desk.pool.available(Purpose::Payload) == 0 {
            self.reactor.note_hunger(line, Some(Purpose::Payload));
            return Direction::Open;
        }
        let Some(pulse) = source.state.line_mut().map(|line| &mut line.pulse) else { return Direction::Broken(line) };
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
        self.after_sifting(line, local, got, sent)
    }

    fn after_sifting(&mut self, line: Key, local: Key, got: Result<Got, Fault>, sent: Result<(), Fault>) -> Direction {
        self.reactor.note_hunger(line, None);
        match (got, sent) {
            (_, Err(_)) => Direction::Broken(local),
            (Err(_), _) => Direction::Broken(line),
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
            Near::Clients(_) if self.ending.is_none() => {
                let since = self.reactor.now;
                self.set_state(local, State::HalfClosed { line, since });
                self.reactor.wake_by(since + self.patience());
            }
            _ => self.end(line, None),
        }
    }

    /// How long the other end of a half-closed session may be silent.
    pub(super) fn patience(&self) -> Duration {
        let contended = self.reactor.iter().any(|(_, socket)| matches!(socket.state, State::Waiting { .. }));
        if contended { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    /// The other end has been silent for long enough, unless it is the client who is slow.
    pub(super) fn end_half_closed(&mut self, client: Key, line: Key) {
        let unread = self.reactor.get(line).is_some_and(|socket| socket.link.may_read());
        let unsent = self.reactor.get(client).is_some_and(|socket| !socket.link.is_flushed());
        if !unread && !unsent {
            self.end(line, None);
        }
    }

    /// While the agent ends, a session with nothing in flight is over.
    fn end_if_idle_at_stop(&mut self, line: Key, local: Key) {
        let quiet = |key| self.reactor.get(key).is_some_and(|s| !s.link.may_read() && s.link.is_flushed());
        if self.ending.is_some() && quiet(line) && quiet(local) {
            self.end(line, None);
        }
    }
}
