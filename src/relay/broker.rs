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
//! | `words` | what peers are told |

pub(crate) mod entries;
pub(crate) mod request;
pub(crate) mod words;

use super::fair_queue::FairQueue;
use super::listeners::LeadsTo;
use super::queue::Ticket;
use super::rate_limit::{Permit, Source};
use super::state::State;
use super::{Relay, Topic};
use crate::failure;
use crate::limits::{
    BROKER_INTRODUCED, BROKER_PUNCHING, BROKER_REQUEST_TIME, BROKER_STRANGERS, BROKER_WAIT, BROKER_WAITING,
};
use crate::net::closing::Ending;
use crate::net::link::{Fault, Got, Link};
use crate::net::reactor::Key;
use crate::net::stream::Stream;
use crate::secret::Secret;
use crate::throttle::{Throttle, and_more};
use entries::{Caller, Entries};
use log::{error, info, warn};
use mio::net::TcpStream;
use request::{Collector, Progress, Request};
use std::net::SocketAddr;
use std::time::Instant;

/// Reads of one peer in one turn.
const READS: usize = 8;
/// Bytes of one read.
const READ: usize = 4 * 1024;

/// The broker's own state. Its connections are the reactor's, as all others.
#[derive(Default)]
pub(super) struct Broker {
    listener: Option<usize>,
    /// The log has told that the port could not be bound.
    complained: bool,
    entries: Entries,
    /// Have not said what they want.
    strangers: FairQueue,
    waiting: FairQueue,
    introduced: FairQueue,
    /// What the log has said of requests that were none, of peers that were pushed out, and of introductions.
    nonsense: Throttle,
    crowds: Throttle,
    introductions: Throttle,
}

/// A connection at the broker's port.
pub(super) enum Peer {
    /// Too much has failed in its network: not looked at before `until`. `request`: what it wants, if it has said so.
    Deferred { ticket: Ticket, until: Instant, request: Option<Box<Request>> },
    /// Its request is to come.
    Asking { ticket: Ticket, until: Instant, collector: Collector },
    /// The first peer of the entry `id`.
    Waiting { ticket: Ticket, until: Instant, id: String },
    /// Has been told of the other one, and has the time to use it.
    Introduced { ticket: Ticket, until: Instant },
}

impl Broker {
    /// Connections at its port.
    pub(super) fn peers(&self) -> usize {
        self.strangers.len() + self.waiting.len() + self.introduced.len()
    }
}

impl Peer {
    fn asking(ticket: Ticket, now: Instant) -> Self {
        Self::Asking { ticket, until: now + BROKER_REQUEST_TIME, collector: Collector::default() }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Deferred { until, .. }
            | Self::Asking { until, .. }
            | Self::Waiting { until, .. }
            | Self::Introduced { until, .. } => *until,
        }
    }
}

impl Relay {
    /// Opens the broker's port if the settings name one and it is not open yet.
    pub(super) fn listen_for_peers(&mut self) {
        let Self { setup, listeners, reactor, broker, .. } = self;
        let (Some(port), None) = (setup.broker, broker.listener) else { return };
        match listeners.bind(setup.listen, port, LeadsTo::Broker, reactor) {
            Ok(number) => {
                broker.listener = Some(number);
                info!("The broker listens on port {port}");
            }
            Err(cause) if !broker.complained => {
                broker.complained = true;
                error!(
                    "The broker's port {port} (`broker` in the settings) could not be bound: {cause}. Peers of direct \
                     entries are not introduced until it can; it is tried again every second"
                );
            }
            Err(_) => {}
        }
    }

    /// Peers that know `passkey` may meet at the entry `id` from now on.
    pub(super) fn open_direct(&mut self, id: String, passkey: Secret) {
        self.broker.entries.open(id, passkey);
    }

    /// The entry is gone, and so is who waited there.
    pub(super) fn close_direct(&mut self, id: &str) {
        if let Some(key) = self.broker.entries.close(id) {
            self.dismiss_peer(key);
        }
    }

    pub(super) fn take_in_peer(&mut self, stream: TcpStream, address: SocketAddr) {
        let (now, source) = (self.reactor.now, self.broker_source(address));
        let permit = self.rate_limit.admit(source, now);
        let link = Link::plain(Stream::Tcp(stream), address, now);
        if permit == Permit::Never {
            return self.reject_at_once(link, source, None);
        }
        if let Some(other) = self.broker.strangers.surplus(BROKER_STRANGERS) {
            self.rate_limit.abandoned(source, now);
            self.dismiss_peer(other);
        }
        self.enter(link, |relay, key| {
            let ticket = relay.broker.strangers.join(key, address.ip());
            Some(State::Peer(match permit {
                Permit::At(until) => {
                    relay.reactor.wake_by(until);
                    Peer::Deferred { ticket, until, request: None }
                }
                _ => Peer::asking(ticket, now),
            }))
        });
    }

    /// Whose failures those of a peer at `address` are.
    fn broker_source(&self, address: SocketAddr) -> Source {
        Source::new(address.ip(), self.setup.broker.unwrap_or_default())
    }

    /// Its time is over: of being deferred, or of what it was waited for.
    pub(super) fn peer_is_due(&mut self, key: Key) {
        let now = self.reactor.now;
        let deferred = |state: &State| matches!(state, State::Peer(Peer::Deferred { .. }));
        match self.take_state_if(key, deferred) {
            Some(State::Peer(Peer::Deferred { ticket, request, .. })) => {
                self.set_state(key, State::Peer(Peer::asking(ticket, now)));
                match request {
                    Some(request) => self.answer_request(key, *request, true),
                    None => self.reactor.again(key),
                }
            }
            _ => self.peer_is_gone(key),
        }
    }

    /// Goes on with one peer.
    pub(super) fn serve_peer(&mut self, key: Key) {
        match self.state(key) {
            Some(State::Peer(Peer::Asking { .. })) => self.hear_request(key),
            Some(State::Peer(Peer::Waiting { .. } | Peer::Introduced { .. })) => match self.look_after(key) {
                Ok(Got::Some) => self.reactor.again(key),
                Ok(Got::Dry | Got::Starved) => {}
                Ok(Got::End) => {
                    self.leave_broker(key);
                    self.close(key, Ending::Complete, None);
                }
                Err(_) => self.dismiss_peer(key),
            },
            _ => {}
        }
    }

    fn hear_request(&mut self, key: Key) {
        for _ in 0..READS {
            let now = self.reactor.now;
            let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
            let State::Peer(Peer::Asking { collector, .. }) = &mut socket.state else { return };
            let peer = socket.link.peer;
            let mut progress = Progress::Incomplete;
            let got = socket.link.receive(READ, desk, now, |bytes| progress = collector.take(bytes, peer));
            match (got, progress) {
                (Ok(_), Progress::Complete(request)) => return self.take_request(key, request),
                (Ok(_), Progress::Wrong(reason)) => return self.refuse_nonsense(key, &reason),
                (Ok(Got::Some), Progress::Incomplete) => {}
                (Ok(Got::Dry | Got::Starved), Progress::Incomplete) => return,
                (Ok(Got::End) | Err(_), _) => return self.peer_is_gone(key),
            }
        }
        self.reactor.again(key);
    }

    /// A whole request has come. It is looked at now, unless its network has tried too many different passkeys.
    fn take_request(&mut self, key: Key, request: Request) {
        let now = self.reactor.now;
        let Some(State::Peer(Peer::Asking { until, .. })) = self.state(key) else { return };
        let (until, source) = (*until, self.broker_source(request.caller.address));
        match self.rate_limit.guess(source, &request.claim(), until, now) {
            Permit::Now => self.answer_request(key, request, false),
            Permit::Never => {
                let delay = self.rate_limit.reject(source, now);
                self.leave_broker(key);
                self.reject_after(key, delay, source, None, &[]);
            }
            Permit::At(until) => {
                let Some(State::Peer(Peer::Asking { ticket, .. })) = self.take_state(key) else { return };
                let request = Some(Box::new(request));
                self.set_state(key, State::Peer(Peer::Deferred { ticket, until, request }));
                self.reactor.wake_by(until);
            }
        }
    }

    /// `waited`: it has had a turn of its own.
    fn answer_request(&mut self, key: Key, request: Request, waited: bool) {
        if !self.broker.entries.admit(&request.id, &request.passkey) {
            return self.refuse_stranger(key, &request, waited);
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
        if !other.is(caller) && matches!(self.look_after(first), Ok(Got::Some | Got::Dry)) {
            return Some((first, other));
        }
        self.dismiss_peer(first);
        None
    }

    fn keep_waiting(&mut self, key: Key, id: String, caller: Caller) {
        self.leave_broker(key);
        if let Some(other) = self.broker.waiting.surplus(BROKER_WAITING) {
            if let Some(unsaid) = self.broker.crowds.may_say(self.reactor.now) {
                let more = and_more(unsaid);
                warn!("Broker: {BROKER_WAITING} peers wait, an old one is closed for a new one{more}");
            }
            self.dismiss_peer(other);
        }
        let ticket = self.broker.waiting.join(key, caller.address.ip());
        self.broker.entries.wait(&id, key, caller);
        let until = self.reactor.now + BROKER_WAIT;
        self.set_state(key, State::Peer(Peer::Waiting { ticket, until, id }));
        if self.tell(key, words::WAIT).is_err() {
            self.dismiss_peer(key);
        }
    }

    fn introduce(&mut self, id: &str, first: (Key, &Caller), second: (Key, &Caller)) {
        let now = self.reactor.now;
        if let Some(unsaid) = self.broker.introductions.may_say(now) {
            let (one, other) = (first.1.address, second.1.address);
            info!("Broker: {one} and {other} introduced at the direct entry {id}{}", and_more(unsaid));
        }
        for ((key, to), other, delay) in [(first, second.1, false), (second, first.1, true)] {
            self.leave_broker(key);
            if let Some(other) = self.broker.introduced.surplus(BROKER_INTRODUCED) {
                self.dismiss_peer(other);
            }
            let ticket = self.broker.introduced.join(key, to.address.ip());
            self.set_state(key, State::Peer(Peer::Introduced { ticket, until: now + BROKER_PUNCHING }));
            if self.tell(key, &words::connect(to, other, delay)).is_err() {
                self.dismiss_peer(key);
            }
        }
    }

    /// Unknown id or wrong passkey: the two are not told apart, and it is told late.
    fn refuse_stranger(&mut self, key: Key, request: &Request, waited: bool) {
        let address = request.caller.address;
        let source = self.broker_source(address);
        let now = self.reactor.now;
        let delay = self.rate_limit.wrong(source, &request.claim(), waited, now);
        if let Some(unsaid) = self.log.may_say(Topic::Rejection(source), now) {
            warn!("Broker: {address} refused, unknown id or wrong passkey{}", and_more(unsaid));
        }
        self.leave_broker(key);
        self.reject_after(key, delay, source, None, words::NOT_AUTHORIZED.as_bytes());
    }

    /// It has left, or its time was over. One that had not said what it wanted is counted.
    fn peer_is_gone(&mut self, key: Key) {
        if let Some(State::Peer(Peer::Asking { .. })) = self.state(key) {
            if let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer) {
                self.rate_limit.abandoned(self.broker_source(address), self.reactor.now);
            }
        }
        self.dismiss_peer(key);
    }

    fn refuse_nonsense(&mut self, key: Key, reason: &str) {
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        if let Some(unsaid) = self.broker.nonsense.may_say(self.reactor.now) {
            warn!("Broker: {address} sent no valid request, and was told why{}", and_more(unsaid));
        }
        self.rate_limit.abandoned(self.broker_source(address), self.reactor.now);
        // It is closed whether it could be told or not.
        let _ = self.tell(key, &failure::body("Bad Request", reason));
        self.dismiss_peer(key);
    }

    /// At most a request and what stands around it: that fits an outbox.
    fn tell(&mut self, key: Key, words: &str) -> Result<(), Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(()) };
        socket.link.send(words.as_bytes(), desk, now)
    }

    /// Sends what is held, and throws away what a peer says behind its request. `Some`: there may be more of it.
    fn look_after(&mut self, key: Key) -> Result<Got, Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Got::End) };
        socket.link.flush(&mut desk.pool, now)?;
        Ok(socket.link.drain(desk, now)?.0)
    }

    /// Closes a peer at once, whatever it was doing.
    pub(super) fn dismiss_peer(&mut self, key: Key) {
        self.leave_broker(key);
        self.discard(key);
    }

    /// Takes a peer out of its queue, and out of its entry if it waits there.
    fn leave_broker(&mut self, key: Key) {
        let Some(State::Peer(peer)) = self.take_state_if(key, |state| matches!(state, State::Peer(_))) else { return };
        let Broker { strangers, waiting, introduced, entries, .. } = &mut self.broker;
        match peer {
            Peer::Deferred { ticket, .. } | Peer::Asking { ticket, .. } => strangers.leave(ticket),
            Peer::Waiting { ticket, id, .. } => {
                waiting.leave(ticket);
                entries.take(&id);
            }
            Peer::Introduced { ticket, .. } => introduced.leave(ticket),
        }
    }
}
