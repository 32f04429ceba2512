//! One way out for every connection of the agent, and how a session ends.
//!
//! How a link is closed so that nothing is lost: see [`crate::net::closing`].

use super::Agent;
use super::state::{Line, State};
use crate::net::closing::{Closing, end_at_once};
use crate::net::reactor::Key;
use crate::throttle::and_more;
use log::info;

impl Agent {
    pub(super) fn set_state(&mut self, key: Key, state: State) {
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            socket.state = state;
        }
    }

    /// Takes the state out, for one that follows. Until then the connection is overdue to be closed.
    pub(super) fn take_state(&mut self, key: Key) -> State {
        let gone = State::Closing(Closing::overdue(self.reactor.now));
        match self.reactor.get_mut(key) {
            Some((socket, _)) => std::mem::replace(&mut socket.state, gone),
            None => gone,
        }
    }

    /// Closes at leisure: what is held is delivered first. The state must have been left already.
    fn close(&mut self, key: Key) {
        self.set_state(key, State::Closing(Closing::begin(self.reactor.now)));
        self.close_further(key);
    }

    /// Closes now, with FIN rather than a reset as far as one read can help it. The state must have been left.
    pub(super) fn discard(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some((socket, desk)) = self.reactor.get_mut(key) {
            end_at_once(&mut socket.link, desk, now);
        }
        self.reactor.remove(key);
    }

    /// The deadline of a closing connection has come.
    pub(super) fn close_at_last(&mut self, key: Key) {
        let now = self.reactor.now;
        let over = self.reactor.get_mut(key).is_none_or(|(socket, _)| match &mut socket.state {
            State::Closing(closing) => closing.is_over(&socket.link, now),
            _ => true,
        });
        if over {
            self.reactor.remove(key);
        }
    }

    /// Goes on with closing.
    pub(super) fn close_further(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Closing(closing) = &mut socket.state else { return };
        match closing.proceed(&mut socket.link, desk, now) {
            Ok(false) => {}
            Ok(true) | Err(_) => drop(self.reactor.remove(key)),
        }
    }

    /// Ends `key` and what it is joined to; what was sent is delivered first. `broken`: the one of both that takes
    /// nothing any more.
    pub(super) fn end(&mut self, key: Key, broken: Option<Key>) {
        let state = self.take_state(key);
        let partner = match &state {
            State::Summoning { local, .. } => *local,
            State::Answering { local, .. } | State::Joined { local, .. } => Some(*local),
            State::Calling { client, .. } => Some(*client),
            State::Connecting { line, .. } | State::Local { line } | State::HalfClosed { line, .. } => Some(*line),
            _ => None,
        };
        self.retire(state);
        self.shut(key, broken);
        if let Some(partner) = partner {
            let state = self.take_state(partner);
            self.retire(state);
            self.shut(partner, broken);
        }
    }

    fn shut(&mut self, key: Key, broken: Option<Key>) {
        if broken == Some(key) { drop(self.reactor.remove(key)) } else { self.close(key) }
    }

    /// Gives back the place of a line that has left its state.
    fn retire(&mut self, state: State) {
        if let Some(line) = state.line() {
            self.give_back(line);
        }
    }

    fn give_back(&mut self, line: &Line) {
        let now = self.reactor.now;
        if line.has_proved_itself(now) {
            self.pool.renew(line.place, now);
            self.reactor.wake_by(now);
        } else {
            let until = self.pool.fail(line.place, now);
            self.reactor.wake_by(until);
        }
    }

    /// A line's heartbeats have not been answered.
    pub(super) fn absent(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some(unsaid) = self.log.absences.may_say(now) {
            info!("The Connector does not answer heartbeats, connection given up{}", and_more(unsaid));
        }
        self.end(key, Some(key));
    }
}
