//! The end of a connection, whatever the reason: one way out, and every exit frees what belongs to it.
//!
//! Closing a socket that has unread bytes makes the kernel reset it, and the peer may lose the end of what it
//! was sent. So: what is held goes out, then close_notify, then FIN, and the peer's own FIN is awaited for a while.

use super::Relay;
use super::state::State;
use crate::limits::{LINGER, LINGER_BYTES};
use crate::net::link::{Fault, Got};
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
        let until = self.reactor.now;
        let (socket, _) = self.reactor.get_mut(key)?;
        Some(std::mem::replace(&mut socket.state, State::Lingering { until, patience: 0 }))
    }

    /// The same if the state is of the right sort, else nothing happens.
    pub(super) fn take_state_if(&mut self, key: Key, is: impl Fn(&State) -> bool) -> Option<State> {
        if is(&self.reactor.get(key)?.state) { self.take_state(key) } else { None }
    }

    /// Closes at leisure: what is held is delivered first. The state must have been left already.
    pub(super) fn close(&mut self, key: Key) {
        let since = self.reactor.now;
        self.set_state(key, State::Delivering { since });
        self.close_further(key);
    }

    /// Closes now, with FIN rather than a reset as far as one read can help it. The state must have been left.
    pub(super) fn discard(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some((socket, desk)) = self.reactor.get_mut(key) {
            // Whatever goes wrong here goes wrong on a connection that is closed anyway.
            let _ = socket.link.drain(desk, now);
            if socket.link.is_open() && socket.link.is_flushed() {
                let _ = socket.link.say_goodbye(desk, now);
            }
            let _ = socket.link.stream().shutdown_write();
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

    /// Goes on with closing.
    pub(super) fn close_further(&mut self, key: Key) {
        match self.next_step(key) {
            Ok(Got::Dry | Got::Some) => {}
            Ok(Got::End) | Err(_) => self.remove(key),
        }
    }

    fn next_step(&mut self, key: Key) -> Result<Got, Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Got::Dry) };
        if !socket.link.flush(&mut desk.pool, now)? {
            return Ok(Got::Dry);
        }
        if let State::Delivering { .. } = socket.state {
            socket.link.say_goodbye(desk, now)?;
            socket.state = State::Parting { since: now };
        }
        if !socket.link.is_flushed() {
            return Ok(Got::Dry);
        }
        if let State::Parting { .. } = socket.state {
            socket.link.stream().shutdown_write()?;
            socket.state = State::Lingering { until: now + LINGER, patience: LINGER_BYTES };
        }
        if let State::Lingering { patience, .. } = &mut socket.state {
            while *patience > 0 {
                match socket.link.drain(desk, now)? {
                    (Got::Some, count) => *patience = patience.saturating_sub(count),
                    (other, _) => return Ok(other),
                }
            }
        }
        Ok(Got::End)
    }
}
