//! One way out for every connection of the agent, and how a session ends.
//!
//! How a link is closed so that nothing is lost: see [`crate::net::closing`].

use super::Agent;
use super::state::{Line, State};
use crate::net::closing::{Cause, Closing, Ending, Progress, end_at_once};
use crate::net::reactor::Key;
use crate::throttle::and_more;
use log::{debug, info};

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
    fn close(&mut self, key: Key, ending: Ending) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        socket.state = State::Closing(Closing::begin(&mut socket.link, ending, now));
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
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        match &mut socket.state {
            State::Closing(closing) => match closing.is_over(&socket.link, now) {
                true => drop(self.reactor.remove(key)),
                false => {
                    let deadline = closing.deadline(&socket.link);
                    self.reactor.wake_by(deadline);
                }
            },
            _ => drop(self.reactor.remove(key)),
        }
    }

    /// Goes on with closing.
    pub(super) fn close_further(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Closing(closing) = &mut socket.state else { return };
        let progress = closing.proceed(&mut socket.link, desk, now);
        let deadline = closing.deadline(&socket.link);
        match progress {
            Ok(Progress::Wait) => self.reactor.wake_by(deadline),
            Ok(Progress::Again) => self.reactor.again(key),
            Ok(Progress::Over) | Err(_) => drop(self.reactor.remove(key)),
        }
    }

    /// Ends `key` and what it is joined to; what was sent is delivered first.
    pub(super) fn end(&mut self, key: Key, cause: Cause) {
        let partner = self.reactor.get(key).and_then(|socket| socket.state.partner());
        if let Some(partner) = partner {
            self.log_end(key, partner, cause);
        }
        let both = [Some((key, partner)), partner.map(|partner| (partner, Some(key)))];
        let endings = both.map(|one| one.map(|(key, from)| (key, self.ending(key, from, cause))));
        for (key, ending) in endings.into_iter().flatten() {
            let state = self.take_state(key);
            self.retire(&state);
            match cause {
                Cause::Broken(broken) if broken == key => drop(self.reactor.remove(key)),
                _ => self.close(key, ending),
            }
        }
    }

    /// What there is to say of a session's end that neither side has made properly.
    fn log_end(&self, key: Key, partner: Key, cause: Cause) {
        let peer = |key| self.reactor.get(key).map(|socket| socket.link.peer);
        let (Some(one), Some(other)) = (peer(key), peer(partner)) else { return };
        match cause {
            Cause::Ended => {}
            Cause::Broken(by) | Cause::Truncated(by) => {
                let by = if by == key { one } else { other };
                debug!("The session of {one} and {other} has ended: {by} has broken off, or is of no more use");
            }
            Cause::Interrupted => debug!("The session of {one} and {other} was ended on its way"),
        }
    }

    fn ending(&self, key: Key, from: Option<Key>, cause: Cause) -> Ending {
        let link = |key| self.reactor.get(key).map(|socket| &socket.link);
        match (link(key), from.and_then(|from| Some((from, link(from)?)))) {
            (Some(own), Some(source)) => cause.ending(own, source),
            // Somebody waits at the other end of the line.
            _ if cause == Cause::Interrupted => Ending::Truncated,
            _ => Ending::Complete,
        }
    }

    /// A line that serves nobody is closed at once.
    pub(super) fn release(&mut self, key: Key) {
        let state = self.take_state(key);
        self.retire(&state);
        self.discard(key);
    }

    /// Gives back the place of a line that has left its state.
    fn retire(&mut self, state: &State) {
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
        self.end(key, Cause::Broken(key));
    }
}
