//! Two connections that are joined: a user and an agent, or the agents of a private pipe.
//!
//! Bytes go both ways until one side ends. What it sent is delivered, and then the other side is closed too: an
//! agent connection serves one session. The one exception is a user that closes its sending side without TLS,
//! which may still be waiting for its answer (docs/protocol.md, section 5).

use super::Relay;
use super::agents::answer_beats;
use super::pipe::{PipeKey, Place};
use super::settling::Answer;
use super::state::State;
use crate::net::closing::{Cause, Ending};
use crate::net::link::{Fault, Got};
use crate::net::pump::{Fail, Failed, Pumped, Then, pump};
use crate::net::reactor::{Key, Socket};
use log::{Level, debug, log_enabled};
use std::fmt::Display;
use std::io::ErrorKind;

/// How one direction stands after its turn.
enum Direction {
    Open,
    /// The source has ended, everything it sent is on its way.
    Ended,
    /// The source has broken off, everything that could be read of it is on its way. It may still listen.
    Truncated(Fault),
    /// The same, and the connection is gone.
    Broken(Fault),
    /// The destination takes nothing any more. What it has sent may still be there to be read.
    Deaf(Fault),
}

impl Direction {
    /// One of the two is of no more use.
    fn of(fail: Fail) -> Self {
        match fail {
            Fail::Source(fault @ Fault::Io(_)) => Self::Broken(fault),
            Fail::Source(fault) => Self::Truncated(fault),
            Fail::Destination(fault) => Self::Deaf(fault),
        }
    }
}

/// How far a direction is with the marks of [`crate::net::marked`].
#[derive(PartialEq, Eq)]
pub(super) enum Marks {
    /// Payload may go on.
    Passed,
    /// Not yet.
    Awaited,
    /// The source has ended without any payload.
    Ended,
}

impl Relay {
    /// Moves what there is to move between an agent and its peer.
    pub(super) fn relay(&mut self, agent: Key, peer: Key) {
        if self.is_reset_user(peer) {
            return self.part(agent, peer, Cause::Broken(peer), Some(&"reset by the user"));
        }
        let from_agent = self.pass_on(agent, peer);
        let half_closed = matches!(self.state(peer), Some(State::HalfClosed { .. }));
        let from_peer = match half_closed {
            // Nothing will come, but answers to heartbeats may still be on their way.
            true => match self.answer_owed(agent) {
                Ok(()) => Direction::Open,
                Err(fault) => Direction::Deaf(fault),
            },
            false => self.pass_on(peer, agent),
        };
        match (from_agent, from_peer) {
            (Direction::Broken(fault), _) => self.part(agent, peer, Cause::Broken(agent), Some(&fault)),
            (Direction::Truncated(fault), _) => self.part(agent, peer, Cause::Truncated(agent), Some(&fault)),
            (Direction::Ended, _) => self.part(agent, peer, Cause::Ended, None),
            (_, Direction::Broken(fault)) => self.part(agent, peer, Cause::Broken(peer), Some(&fault)),
            (_, Direction::Truncated(fault)) => self.part(agent, peer, Cause::Truncated(peer), Some(&fault)),
            // It takes nothing any more, and all that it sent is on its way.
            (Direction::Deaf(_), Direction::Ended) => self.part(agent, peer, Cause::Ended, None),
            (Direction::Deaf(fault), _) => self.part_when_read(peer, agent, &fault),
            (_, Direction::Deaf(fault)) => self.part_when_read(agent, peer, &fault),
            (_, Direction::Ended) => self.peer_ended(agent, peer),
            _ => self.end_if_idle_at_stop(agent, peer),
        }
    }

    /// `deaf` takes nothing any more. If it is an agent, what it has sent before is delivered first: an answer that
    /// comes before the whole question was read, say. A user's last words are for nobody.
    fn part_when_read(&mut self, deaf: Key, other: Key, fault: &Fault) {
        let is_unread = |s: &Socket<State>| s.state.agent().is_some() && s.link.may_read() && !s.link.has_ended();
        let unread = self.reactor.get(deaf).is_some_and(is_unread);
        if !unread {
            self.part(deaf, other, Cause::Broken(deaf), Some(fault));
        }
    }

    /// A user's reset ends the session at once, whatever still stands in its way.
    fn is_reset_user(&self, key: Key) -> bool {
        self.reactor.get(key).is_some_and(|socket| {
            matches!(socket.state, State::Served { .. } | State::HalfClosed { .. }) && socket.link.is_reset()
        })
    }

    /// One direction, one turn.
    fn pass_on(&mut self, from: Key, to: Key) -> Direction {
        let now = self.reactor.now;
        if self.is_being_welcomed(to) {
            return Direction::Open;
        }
        // Before more payload: with a busy pipe there is hardly ever another moment.
        if let Err(fault) = self.answer_owed(to) {
            return Direction::Deaf(fault);
        }
        match self.pass_marks(from, to) {
            Ok(Marks::Passed) => {}
            Ok(Marks::Awaited) => return Direction::Open,
            Ok(Marks::Ended) => return Direction::Ended,
            Err(fail) => return Direction::of(fail),
        }
        let Some((source, destination, desk)) = self.reactor.pair_mut(from, to) else {
            return Direction::Broken(Fault::Io(ErrorKind::NotConnected.into()));
        };
        let ends = (source.state.end(), destination.state.end());
        let pumped = pump((&mut source.link, ends.0), (&mut destination.link, ends.1), desk, now);
        let payload = match &pumped {
            Ok(Pumped { payload, .. }) | Err(Failed { payload, .. }) => *payload,
        };
        if let (Ok(Pumped { beats, .. }), State::Joined { agent, .. }) = (&pumped, &mut source.state) {
            agent.owe(*beats);
        }
        if payload > 0 {
            self.count(from, to, payload);
        }
        let Pumped { beats, then, .. } = match pumped {
            Ok(pumped) => pumped,
            Err(Failed { fail, .. }) => return Direction::of(fail),
        };
        if beats > 0 {
            // If it does not take the answers, the other direction will find out.
            let _ = self.answer_owed(from);
        }
        self.reactor.note_hunger(from, then.wants());
        match then {
            Then::Ended => return Direction::Ended,
            Then::Again => self.reactor.again(from),
            Then::Full => self.note_held_back(from),
            Then::Starved(_) | Then::Dry => {}
        }
        Direction::Open
    }

    /// Hears and says the marks behind which all is payload, where agents have them.
    pub(super) fn pass_marks(&mut self, from: Key, to: Key) -> Result<Marks, Fail> {
        let now = self.reactor.now;
        let Some((source, desk)) = self.reactor.get_mut(from) else { return Ok(Marks::Awaited) };
        if let State::Joined { agent, .. } = &mut source.state {
            if let Some(marked) = agent.marked.as_mut().filter(|marked| !marked.hears_payload()) {
                let (beats, got) = marked.hear(&mut source.link, desk, now).map_err(Fail::Source)?;
                let is_open = marked.hears_payload();
                agent.owe(beats);
                // If it does not take the answers, the other direction will find out.
                let _ = answer_beats(&mut source.link, agent, desk, now);
                match got {
                    Got::Some if !is_open => self.reactor.again(from),
                    Got::End => return Ok(Marks::Ended),
                    _ => {}
                }
                if !is_open {
                    return Ok(Marks::Awaited);
                }
            }
        }
        self.begin_payload(from, to)
    }

    /// Says the mark, if this agent waits for one and there is something to say behind it.
    fn begin_payload(&mut self, from: Key, to: Key) -> Result<Marks, Fail> {
        let now = self.reactor.now;
        let Some((source, destination, desk)) = self.reactor.pair_mut(from, to) else { return Ok(Marks::Awaited) };
        let Some(marked) = destination.state.agent_mut().and_then(|agent| agent.marked.as_mut()) else {
            return Ok(Marks::Passed);
        };
        // What is not there yet will raise an event, and the pump does not find it before.
        if marked.sends_payload() || source.link.waiting(desk).map_err(Fail::Source)? != Got::Some {
            return Ok(Marks::Passed);
        }
        if destination.link.is_flushed() && !destination.link.can_send(&desk.pool) {
            let want = destination.link.payload_want();
            self.reactor.note_hunger(from, Some(want));
            return Ok(Marks::Awaited);
        }
        marked.begin_payload(&mut destination.link, desk, now).map_err(Fail::Destination)?;
        Ok(Marks::Passed)
    }

    fn count(&mut self, from: Key, to: Key, payload: u64) {
        let now = self.reactor.now;
        let Some((source, destination, _)) = self.reactor.pair_mut(from, to) else { return };
        if let State::HalfClosed { since, .. } = &mut destination.state {
            *since = now;
        }
        let place = match (&mut source.state, &mut destination.state) {
            (State::Joined { agent, .. }, _) => {
                agent.answer.add(now);
                agent.place
            }
            (State::Served { pipe, .. }, State::Joined { agent, .. }) => {
                agent.answer = Answer::Awaited;
                Place { pipe: *pipe, side: 1 }
            }
            _ => return,
        };
        self.count_payload(place, payload);
    }

    /// Counts payload that came in at `place` and went out on the other side.
    pub(super) fn count_payload(&mut self, place: Place, payload: u64) {
        if let Some(pipe) = self.pipes.get_mut(place.pipe) {
            pipe.count(place.side, payload);
        }
    }

    fn answer_owed(&mut self, key: Key) -> Result<(), Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(()) };
        match &mut socket.state {
            State::Joined { agent, .. } => answer_beats(&mut socket.link, agent, desk, now),
            _ => Ok(()),
        }
    }

    /// The side that is not `agent` will send no more.
    fn peer_ended(&mut self, agent: Key, peer: Key) {
        let now = self.reactor.now;
        let half = match self.reactor.get(peer) {
            Some(socket) if socket.link.is_plain() => match socket.state {
                State::Served { pipe, .. } => Some(pipe),
                _ => None,
            },
            _ => None,
        };
        let Some(pipe) = half else { return self.part(agent, peer, Cause::Ended, None) };
        self.set_state(peer, State::HalfClosed { pipe, agent, since: now });
        self.reactor.wake_by(now + self.patience(pipe));
    }

    /// A half-closed user's agent has been silent for long enough, unless it is the user who is slow.
    pub(super) fn end_half_closed(&mut self, user: Key, agent: Key) {
        let unread = self.reactor.get(agent).is_some_and(|socket| socket.link.may_read());
        let unsent = self.reactor.get(user).is_some_and(|socket| !socket.link.is_flushed());
        if !unread && !unsent {
            let cause = if self.ending.is_some() { Cause::Interrupted } else { Cause::Ended };
            self.part(
                agent,
                user,
                cause,
                Some(&"nothing came from the agent after the user had closed its sending side"),
            );
        }
    }

    /// While the daemon ends, a session with nothing in flight is over. A half-closed one waits for its answer, but not
    /// for long.
    fn end_if_idle_at_stop(&mut self, agent: Key, peer: Key) {
        let quiet = |key| self.reactor.get(key).is_some_and(|s| !s.link.may_read() && s.link.is_flushed());
        let awaits = matches!(self.state(peer), Some(State::HalfClosed { .. }));
        if self.ending.is_some() && !awaits && quiet(agent) && quiet(peer) {
            self.part(agent, peer, Cause::Interrupted, Some(&"the daemon is stopping"));
        }
    }

    /// The end of a session: both are closed, after what they still hold for their readers. `why`: what there is to say
    /// of an end that neither side has made properly.
    pub(super) fn part(&mut self, one: Key, other: Key, cause: Cause, why: Option<&dyn Display>) {
        if let Some(why) = why {
            self.log_end(one, other, cause, why);
        }
        self.note_leftovers(one, other, cause);
        self.note_leftovers(other, one, cause);
        let ending = |key, from| match (self.reactor.get(key), self.reactor.get(from)) {
            (Some(own), Some(source)) => cause.ending(&own.link, (from, &source.link)),
            _ => Ending::Truncated,
        };
        for (key, ending) in [(one, ending(one, other)), (other, ending(other, one))] {
            let pipe = self.leave_session(key);
            if cause == Cause::Broken(key) { self.remove(key) } else { self.close(key, ending, pipe) }
        }
    }

    fn log_end(&self, one: Key, other: Key, cause: Cause, why: &dyn Display) {
        if !log_enabled!(Level::Debug) {
            return;
        }
        let (Some(first), Some(second)) = (self.reactor.get(one), self.reactor.get(other)) else { return };
        let pipe = first.state.pipe().and_then(|pipe| self.pipes.get(pipe));
        let id = pipe.map_or("", |pipe| &pipe.id);
        let describe = |socket: &Socket<State>| {
            let is_agent = socket.state.agent().is_some();
            format!("{} {}", if is_agent { "agent" } else { "user" }, socket.link.peer)
        };
        let (first, second) = (describe(first), describe(second));
        let side = match cause {
            Cause::Broken(key) | Cause::Truncated(key) if key == one => format!("{first}: "),
            Cause::Broken(_) | Cause::Truncated(_) => format!("{second}: "),
            Cause::Ended | Cause::Interrupted => String::new(),
        };
        debug!("Mapping {id}: the session of {first} and {second} has ended, {side}{why}");
    }

    /// Ends `key` at once, and with it the session that it belongs to, because of `why`.
    pub(super) fn abort(&mut self, key: Key, why: &dyn Display) {
        match self.state(key) {
            Some(State::Joined { peer, .. }) => self.part(key, *peer, Cause::Broken(key), Some(why)),
            Some(State::Served { agent, .. } | State::HalfClosed { agent, .. }) => {
                self.part(key, *agent, Cause::Broken(key), Some(why));
            }
            Some(State::Free { .. }) => {
                self.leave_pool(key);
                self.remove(key);
            }
            Some(State::Deferred { .. } | State::Greeting { .. }) => self.turn_away(key),
            Some(State::Rejected(_)) => self.close_rejected(key),
            Some(State::Silent { .. } | State::Waiting { .. }) => self.dismiss_user(key),
            Some(State::Peer(_)) => self.dismiss_peer(key),
            Some(State::Api(_)) => self.drop_controller(key),
            Some(State::Backend(backend)) => self.drop_controller(backend.client),
            Some(State::Closing { .. }) | None => self.remove(key),
        }
    }

    /// Takes a connection out of the counts of its pipe.
    fn leave_session(&mut self, key: Key) -> Option<PipeKey> {
        let address = self.reactor.get(key)?.link.peer.ip();
        match self.take_state(key)? {
            State::Joined { agent, .. } => {
                self.agents(agent.place)?.count_out(address);
                Some(agent.place.pipe)
            }
            State::Served { pipe, .. } | State::HalfClosed { pipe, .. } => {
                self.users(pipe)?.joined -= 1;
                Some(pipe)
            }
            _ => None,
        }
    }
}
