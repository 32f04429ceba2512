//! Rejected connections: they are closed late, so that a client that redials at once is slowed by its own waiting
//! (docs/protocol.md, section 4).
//!
//! Until then nothing of them is read, and what TLS takes has been freed: one costs its socket and its state. They
//! have places of their own for the whole daemon, so that they keep out nobody who has not been rejected.

use super::Relay;
use super::pipe::PipeKey;
use super::rate_limit::Source;
use super::state::{Rejected, State};
use crate::limits::REJECTED;
use crate::net::link::Link;
use crate::net::reactor::{Close, Key, SocketMut};
use crate::net::service::Service;
use std::time::Duration;

impl Relay {
    /// Closes a connection after `delay`, with `words` if there is something to say. It leaves its state now.
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
        let Some((SocketMut { link, .. }, ctx)) = self.reactor.get_mut(key) else { return };
        // Who has left already, or does not even take the handshake, is not waited for.
        if link.has_hung_up() || !link.is_flushed() {
            let _ = link.write_through(words, now);
            self.rate_limit.abandoned(source, now);
            return self.close(key, Close::Now);
        }
        let peer = link.peer;
        let close_notify = link.drop_tls(ctx);
        let last_bytes = if words.is_empty() { close_notify } else { words.into() };
        let until = now + delay;
        let ticket = self.rejected.join(key, peer.ip());
        let rejected = State::Rejected(Box::new(Rejected { until, pipe, ticket, source, last_bytes }));
        if let Some(left) = self.reactor.change(key, rejected) {
            self.left(left);
        }
        self.reactor.wake_by(until);
    }

    /// Takes in a connection that is not even looked at: its network has abandoned too many.
    pub(super) fn reject_at_once(&mut self, link: Link, source: Source, pipe: Option<PipeKey>) {
        let now = self.reactor.now;
        if let Some(oldest) = self.rejected.surplus(REJECTED) {
            self.rejected_has_left(oldest);
        }
        let until = now + self.rate_limit.reject(source, now);
        let Self { reactor, rejected, .. } = self;
        let address = link.peer.ip();
        let _ = reactor.add_with(link, |key| {
            let ticket = rejected.join(key, address);
            State::Rejected(Box::new(Rejected { until, pipe, ticket, source, last_bytes: Box::default() }))
        });
        self.reactor.wake_by(until);
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
        if let Some(State::Rejected(rejected)) = self.reactor.get(key).map(|socket| socket.state) {
            self.rate_limit.abandoned(rejected.source, now);
        }
        self.close_rejected(key);
    }

    /// Its time is over.
    pub(super) fn close_rejected(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some((SocketMut { link, state: State::Rejected(rejected) }, _)) = self.reactor.get_mut(key) {
            // So few bytes that an idle socket takes them; one that does not is closed without.
            let _ = link.write_through(&rejected.last_bytes, now);
        }
        self.close(key, Close::Now);
    }
}
