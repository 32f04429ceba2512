//! One way out for every connection: each exit leaves its state and frees what belongs to it.
//!
//! How a link is closed so that nothing is lost: see [`crate::net::closing`].

use super::Relay;
use super::pipe::PipeKey;
use super::state::State;
use crate::net::closing::{Closing, Ending, Progress, end_at_once};
use crate::net::reactor::Key;

impl Relay {
    pub(super) fn state(&self, key: Key) -> Option<&State> {
        self.reactor.get(key).map(|socket| &socket.state)
    }

    pub(super) fn set_state(&mut self, key: Key, state: State) {
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            socket.state = state;
        }
    }

    /// Takes the state out, for one that follows. Until then the connection is overdue to be closed.
    pub(super) fn take_state(&mut self, key: Key) -> Option<State> {
        let gone = State::Closing { closing: Closing::overdue(self.reactor.now), pipe: None };
        let (socket, _) = self.reactor.get_mut(key)?;
        Some(std::mem::replace(&mut socket.state, gone))
    }

    /// The same if the state is of the right sort, else nothing happens.
    pub(super) fn take_state_if(&mut self, key: Key, is: impl Fn(&State) -> bool) -> Option<State> {
        if is(&self.reactor.get(key)?.state) { self.take_state(key) } else { None }
    }

    /// Closes at leisure: what is held is delivered first. The state must have been left already. The connection
    /// still goes with its `pipe`.
    pub(super) fn close(&mut self, key: Key, ending: Ending, pipe: Option<PipeKey>) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        socket.state = State::Closing { closing: Closing::begin(&mut socket.link, ending, now), pipe };
        self.close_further(key);
    }

    /// Closes now, with FIN rather than a reset as far as one read can help it. The state must have been left.
    pub(super) fn discard(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some((socket, desk)) = self.reactor.get_mut(key) {
            end_at_once(&mut socket.link, desk, now);
        }
        self.remove(key);
    }

    /// Forgets the connection.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(State::Backend(_)) = self.reactor.remove(key) {
            self.backends -= 1;
        }
        self.listeners.resume();
    }

    /// The deadline of a closing connection has come.
    pub(super) fn close_at_last(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        match &mut socket.state {
            State::Closing { closing, .. } => match closing.is_over(&socket.link, now) {
                true => self.remove(key),
                false => {
                    let deadline = closing.deadline(&socket.link);
                    self.reactor.wake_by(deadline);
                }
            },
            _ => self.remove(key),
        }
    }

    /// Goes on with closing.
    pub(super) fn close_further(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Closing { closing, .. } = &mut socket.state else { return };
        let progress = closing.proceed(&mut socket.link, desk, now);
        let deadline = closing.deadline(&socket.link);
        match progress {
            Ok(Progress::Wait) => self.reactor.wake_by(deadline),
            Ok(Progress::Again) => self.reactor.again(key),
            Ok(Progress::Over) | Err(_) => self.remove(key),
        }
    }
}
