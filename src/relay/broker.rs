//! The broker: introduces the two peers of a direct entry to each other (docs/protocol.md, "Broker").
//!
//! The first peer of an entry waits. When the second comes, each is told where the other is, and both may close;
//! the daemon relays nothing between them. The broker's port is plain TCP in every mode: what travels here is
//! no payload, and the certificates are for what the peers say to each other. A peer that closes, be it only its
//! sending side, has left.
//!
//! A broker port that cannot be bound keeps nothing else from working: it is said, and tried again every second.
//!
//! | file | idea |
//! |---|---|
//! | `request` | bytes in, what a peer wants out |
//! | `entries` | the direct entries, and who waits |
//! | `peer` | what a connection is doing |
//! | `words` | what peers are told |

pub(crate) mod entries;
pub(crate) mod peer;
pub(crate) mod request;
pub(crate) mod words;

use super::fair_queue::FairQueue;
use super::listeners::{LeadsTo, SettingsPort};
use super::rate_limit::{Permit, Source};
use super::state::State;
use super::{Relay, Topic};
use crate::failure;
use crate::limits::{
    BROKER_INTRODUCED, BROKER_PUNCHING, BROKER_UNAUTHENTICATED, BROKER_WAIT, BROKER_WAITING, MESSAGES_A_TURN,
    SMALL_READ,
};
use crate::net::closing::Ending;
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Close, Key, SocketMut};
use crate::net::service::Service;
use crate::net::stream::Stream;
use crate::secret::Secret;
use crate::throttle::{Throttle, and_more};
use entries::{Caller, Entries};
use log::{error, info, warn};
use mio::net::TcpStream;
use peer::Peer;
use request::{Progress, Request};
use std::net::SocketAddr;

/// The broker's own state. Its connections are the reactor's, as all others.
#[derive(Default)]
pub(super) struct Broker {
    port: SettingsPort,
    entries: Entries,
    /// Have not said what they want.
    unauthenticated: FairQueue,
    waiting: FairQueue,
    introduced: FairQueue,
    /// What the log has said of requests that were none, of peers that were pushed out, and of introductions.
    nonsense: Throttle,
    crowds: Throttle,
    introductions: Throttle,
}

impl Broker {
    /// Connections at its port.
    pub(super) fn peers(&self) -> usize {
        self.unauthenticated.len() + self.waiting.len() + self.introduced.len()
    }

    /// A peer has left what it was doing: its queue, and its entry if it waited there.
    pub(super) fn left(&mut self, peer: Peer) {
        match peer {
            Peer::Deferred { ticket, .. } | Peer::Asking { ticket, .. } => self.unauthenticated.leave(ticket),
            Peer::Waiting { ticket, id, .. } => {
                self.waiting.leave(ticket);
                self.entries.take(&id);
            }
            Peer::Introduced { ticket, .. } => self.introduced.leave(ticket),
        }
    }
}

impl Relay {
    /// Opens the broker's port if the settings name one and it is not open yet.
    pub(super) fn listen_for_peers(&mut self) {
        let Self { setup, listeners, reactor, broker, .. } = self;
        let Some(port) = setup.broker else { return };
        match broker.port.open(listeners, setup.listen, port, LeadsTo::Broker, reactor.registry()) {
            Some(Ok(())) => info!("The broker listens on port {port}"),
            Some(Err(cause)) => error!(
                "The broker's port {port} (`broker` in the settings) could not be bound: {cause}. Peers of direct \
                 entries are not introduced until it can; it is tried again every second"
            ),
            None => {}
        }
    }

    /// Peers that know `passkey` may meet at the entry `id` from now on.
    pub(super) fn open_direct(&mut self, id: String, passkey: Secret) {
        self.broker.entries.open(id, passkey);
    }

    /// The entry is gone, and so is who waited there.
    pub(super) fn close_direct(&mut self, id: &str) {
        if let Some(key) = self.broker.entries.close(id) {
            self.close(key, Close::Now);
        }
    }

    pub(super) fn accept_peer(&mut self, stream: TcpStream, address: SocketAddr) {
        let (now, source) = (self.reactor.now, self.broker_source(address));
        let permit = self.rate_limit.admit(source, now);
        let link = Link::plain(Stream::Tcp(stream), address, now);
        if permit == Permit::Never {
            return self.reject_at_once(link, source, None);
        }
        if let Some(other) = self.broker.unauthenticated.surplus(BROKER_UNAUTHENTICATED) {
            self.rate_limit.abandoned(source, now);
            self.close(other, Close::Now);
        }
        if let Permit::At(until) = permit {
            self.reactor.wake_by(until);
        }
        let Self { reactor, broker, .. } = self;
        // Without a place in the reactor it is closed, and was never counted.
        let _ = reactor.add_with(link, |key| {
            let ticket = broker.unauthenticated.join(key, address.ip());
            State::Peer(match permit {
                Permit::At(until) => Peer::Deferred { ticket, until, request: None },
                _ => Peer::asking(ticket, now),
            })
        });
    }

    /// Whose failures those of a peer at `address` are.
    fn broker_source(&self, address: SocketAddr) -> Source {
        Source::new(address.ip(), self.setup.broker.unwrap_or_default())
    }

    fn peer(&mut self, key: Key) -> Option<&mut Peer> {
        match self.reactor.get_mut(key)?.0.state {
            State::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    /// Another state of the broker's, which `peer` is joined to.
    fn change_peer(&mut self, key: Key, to: Peer) {
        if let Some(State::Peer(left)) = self.reactor.change(key, State::Peer(to)) {
            self.broker.left(left);
        }
    }

    /// Its time is over: of being deferred, or of what it was waited for.
    pub(super) fn peer_is_due(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(socket) = self.reactor.get(key) else { return };
        let (State::Peer(Peer::Deferred { .. }), address) = (socket.state, socket.link.peer) else {
            return self.peer_is_gone(key);
        };
        let ticket = self.broker.unauthenticated.join(key, address.ip());
        let Some(State::Peer(left)) = self.reactor.change(key, State::Peer(Peer::asking(ticket, now))) else { return };
        let Peer::Deferred { ticket, request, .. } = left else { return };
        self.broker.unauthenticated.leave(ticket);
        match request {
            Some(request) => self.answer_request(key, *request, true),
            None => self.reactor.again(key),
        }
    }

    /// Goes on with one peer.
    pub(super) fn serve_peer(&mut self, key: Key) {
        match self.peer(key) {
            Some(Peer::Asking { .. }) => self.hear_request(key),
            Some(Peer::Waiting { .. } | Peer::Introduced { .. }) => match self.look_after(key) {
                Ok(Input::Data) => self.reactor.again(key),
                Ok(Input::WouldBlock | Input::Starved) => {}
                Ok(Input::Eof) => self.close(key, Close::Drain(Ending::Complete)),
                Err(_) => self.close(key, Close::Now),
            },
            _ => {}
        }
    }

    fn hear_request(&mut self, key: Key) {
        for _ in 0..MESSAGES_A_TURN {
            let now = self.reactor.now;
            let Some((SocketMut { link, state: State::Peer(peer) }, ctx)) = self.reactor.get_mut(key) else { return };
            let (Peer::Asking { collector, .. }, peer) = (peer, link.peer) else { return };
            let mut progress = Progress::Incomplete;
            let got = link.receive(SMALL_READ, ctx, now, |bytes| progress = collector.take(bytes, peer));
            match (got, progress) {
                (Ok(_), Progress::Complete(request)) => return self.take_request(key, request),
                (Ok(_), Progress::Wrong(reason)) => return self.refuse_nonsense(key, &reason),
                (Ok(Input::Data), Progress::Incomplete) => {}
                (Ok(Input::WouldBlock | Input::Starved), Progress::Incomplete) => return,
                (Ok(Input::Eof) | Err(_), _) => return self.peer_is_gone(key),
            }
        }
        self.reactor.again(key);
    }

    /// A whole request has come. It is looked at now, unless its network has tried too many different passkeys.
    fn take_request(&mut self, key: Key, request: Request) {
        let now = self.reactor.now;
        let Some(Peer::Asking { until, .. }) = self.peer(key) else { return };
        let (until, source) = (*until, self.broker_source(request.caller.address));
        match self.rate_limit.guess(source, &request.claim(), until, now) {
            Permit::Now => self.answer_request(key, request, false),
            Permit::Never => {
                let delay = self.rate_limit.reject(source, now);
                self.reject_after(key, delay, source, None, &[]);
            }
            Permit::At(until) => {
                let ticket = self.broker.unauthenticated.join(key, request.caller.address.ip());
                self.change_peer(key, Peer::Deferred { ticket, until, request: Some(Box::new(request)) });
                self.reactor.wake_by(until);
            }
        }
    }

    /// `waited`: it has had a turn of its own.
    fn answer_request(&mut self, key: Key, request: Request, waited: bool) {
        if !self.broker.entries.admit(&request.id, &request.passkey) {
            return self.refuse_peer(key, &request, waited);
        }
        let Request { id, caller, .. } = request;
        match self.take_waiting(&id, &caller) {
            Some((first, other)) => self.introduce(&id, (first, &other), (key, &caller)),
            None => self.keep_waiting(key, id, caller),
        }
    }

    /// The first peer of the entry, if it is still there and is not `caller` itself: a connection that has died at the
    /// NAT is not noticed before the peer connects again.
    fn take_waiting(&mut self, id: &str, caller: &Caller) -> Option<(Key, Caller)> {
        let (first, other) = self.broker.entries.take(id)?;
        // Its end may have come in this very turn, and not have had its own.
        if !other.is(caller) && matches!(self.look_after(first), Ok(Input::Data | Input::WouldBlock)) {
            return Some((first, other));
        }
        self.close(first, Close::Now);
        None
    }

    fn keep_waiting(&mut self, key: Key, id: String, caller: Caller) {
        if let Some(other) = self.broker.waiting.surplus(BROKER_WAITING) {
            if let Some(unsaid) = self.broker.crowds.may_say(self.reactor.now) {
                let more = and_more(unsaid);
                warn!("Broker: {BROKER_WAITING} peers wait, an old one is closed for a new one{more}");
            }
            self.close(other, Close::Now);
        }
        let ticket = self.broker.waiting.join(key, caller.address.ip());
        self.broker.entries.wait(&id, key, caller);
        let until = self.reactor.now + BROKER_WAIT;
        self.change_peer(key, Peer::Waiting { ticket, until, id });
        if self.tell(key, words::WAIT).is_err() {
            self.close(key, Close::Now);
        }
    }

    fn introduce(&mut self, id: &str, first: (Key, &Caller), second: (Key, &Caller)) {
        let now = self.reactor.now;
        if let Some(unsaid) = self.broker.introductions.may_say(now) {
            let (one, other) = (first.1.address, second.1.address);
            info!("Broker: {one} and {other} introduced at the direct entry {id}{}", and_more(unsaid));
        }
        for ((key, to), other, delay) in [(first, second.1, false), (second, first.1, true)] {
            if let Some(other) = self.broker.introduced.surplus(BROKER_INTRODUCED) {
                self.close(other, Close::Now);
            }
            let ticket = self.broker.introduced.join(key, to.address.ip());
            self.change_peer(key, Peer::Introduced { ticket, until: now + BROKER_PUNCHING });
            if self.tell(key, &words::connect(to, other, delay)).is_err() {
                self.close(key, Close::Now);
            }
        }
    }

    /// Unknown id or wrong passkey: the two are not told apart, and it is told late.
    fn refuse_peer(&mut self, key: Key, request: &Request, waited: bool) {
        let address = request.caller.address;
        let source = self.broker_source(address);
        let now = self.reactor.now;
        let delay = self.rate_limit.wrong(source, &request.claim(), waited, now);
        if let Some(unsaid) = self.log.may_say(Topic::Rejection(source), now) {
            warn!("Broker: {address} refused, unknown id or wrong passkey{}", and_more(unsaid));
        }
        self.reject_after(key, delay, source, None, words::NOT_AUTHORIZED.as_bytes());
    }

    /// It has left, or its time was over. One that had not said what it wanted is counted.
    fn peer_is_gone(&mut self, key: Key) {
        if let Some(Peer::Asking { .. }) = self.peer(key) {
            if let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer) {
                self.rate_limit.abandoned(self.broker_source(address), self.reactor.now);
            }
        }
        self.close(key, Close::Now);
    }

    fn refuse_nonsense(&mut self, key: Key, reason: &str) {
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        if let Some(unsaid) = self.broker.nonsense.may_say(self.reactor.now) {
            warn!("Broker: {address} sent no valid request, and was told why{}", and_more(unsaid));
        }
        self.rate_limit.abandoned(self.broker_source(address), self.reactor.now);
        // It is closed whether it could be told or not.
        let _ = self.tell(key, &failure::body("Bad Request", reason));
        self.close(key, Close::Now);
    }

    /// At most a request and what stands around it: that fits an outbox.
    fn tell(&mut self, key: Key, words: &str) -> Result<(), LinkError> {
        let now = self.reactor.now;
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return Ok(()) };
        socket.link.send(words.as_bytes(), ctx, now)
    }

    /// Sends what is held, and throws away what a peer says behind its request. `Some`: there may be more of it.
    fn look_after(&mut self, key: Key) -> Result<Input, LinkError> {
        let now = self.reactor.now;
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return Ok(Input::Eof) };
        socket.link.flush(&mut ctx.pool, now)?;
        Ok(socket.link.drain(ctx, now)?.0)
    }
}
