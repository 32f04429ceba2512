//! Rejected connections: they are closed late, so that a client that redials at once is slowed by its own waiting
//! (docs/protocol.md, section 4).
//!
//! Until then nothing of them is read, and what TLS takes has been freed: one costs its socket and its state. They
//! have places of their own for the whole daemon, so that they keep out nobody who has not been rejected.

use super::Relay;
use super::pipe::PipeKey;
use super::queue::Ticket;
use super::rate_limit::Source;
use super::state::State;
use crate::limits::REJECTED;
use crate::net::closing::Closing;
use crate::net::link::Link;
use crate::net::reactor::Key;
use std::time::{Duration, Instant};

/// A connection that has been rejected and not been told yet.
pub(super) struct Rejected {
    pub(super) until: Instant,
    /// The mapping whose port it came to; with that it goes.
    pub(super) pipe: Option<PipeKey>,
    ticket: Ticket,
    source: Source,
    /// What it is sent in the end: its close_notify, say.
    farewell: Box<[u8]>,
}

impl Relay {
    /// Closes a connection after `delay`, with `words` if there is something to say. Its state must have been left.
    pub(super) fn reject_after(
        &mut self,
        key: Key,
        delay: Duration,
        source: Source,
        pipe: Option<PipeKey>,
        words: &[u8],
    ) {
        let now = self.reactor.now;
        if let Some(oldest) = self.rejected.surplus(REJECTED) {
            self.rejected_has_left(oldest);
        }
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        // Who has left already, or does not even take the handshake, is not waited for.
        if socket.link.has_hung_up() || !socket.link.is_flushed() {
            let _ = socket.link.write_through(words, now);
            self.rate_limit.abandoned(source, now);
            return self.discard(key);
        }
        let address = socket.link.peer.ip();
        let close_notify = socket.link.give_up_tls(desk);
        let farewell = if words.is_empty() { close_notify } else { words.into() };
        let until = now + delay;
        let ticket = self.rejected.join(key, address);
        self.set_state(key, State::Rejected(Box::new(Rejected { until, pipe, ticket, source, farewell })));
        self.reactor.wake_by(until);
    }

    /// Takes in a connection that is not even looked at: its network has abandoned too many.
    pub(super) fn reject_at_once(&mut self, link: Link, source: Source, pipe: Option<PipeKey>) {
        let now = self.reactor.now;
        let Ok(key) = self.reactor.add(link, State::Closing { closing: Closing::overdue(now), pipe }) else { return };
        let delay = self.rate_limit.reject(source, now);
        self.reject_after(key, delay, source, pipe, &[]);
    }

    /// Something has happened to it: all that counts is whether it has left.
    pub(super) fn watch_rejected(&mut self, key: Key) {
        if self.reactor.get(key).is_some_and(|socket| socket.link.has_hung_up()) {
            self.rejected_has_left(key);
        }
    }

    /// It did not wait for its end, or had to make room for others.
    pub(super) fn rejected_has_left(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some(State::Rejected(rejected)) = self.state(key) {
            self.rate_limit.abandoned(rejected.source, now);
        }
        self.close_rejected(key);
    }

    /// Its time is over.
    pub(super) fn close_rejected(&mut self, key: Key) {
        let now = self.reactor.now;
        let rejected = |state: &State| matches!(state, State::Rejected(_));
        if let Some(State::Rejected(rejected)) = self.take_state_if(key, rejected) {
            self.rejected.leave(rejected.ticket);
            if let Some((socket, _)) = self.reactor.get_mut(key) {
                // So few bytes that an idle socket takes them; one that does not is closed without.
                let _ = socket.link.write_through(&rejected.farewell, now);
            }
        }
        self.discard(key);
    }
}
