//! Agent ports, up to the passcode: handshake, passcode, rejection (docs/protocol.md, section 4).
//!
//! An unauthenticated connection costs little: no relay buffer, one try, a deadline, and a place in a queue that evicts
//! the oldest.

use super::counters::{Limited, Port};
use super::pipe::PipePort;
use super::rate_limit::{Permit, Source};
use super::state::{Agent, Duty, State, Unauthenticated};
use super::{Relay, Topic};
use crate::limits::{AUTHENTICATION, MESSAGES_A_TURN, NO_PLACE, WELCOME};
use crate::net::buffers::IoContext;
use crate::net::framed::Framed;
use crate::net::link::{Input, Link, LinkError};
use crate::net::marked::Marked;
use crate::net::pump::send_payload;
use crate::net::reactor::{Close, Key, SocketMut};
use crate::net::service::Service;
use crate::net::session::Cause;
use crate::network::Network;
use crate::secret::Secret;
use crate::throttle::and_more;
use crate::wire::passcode::{Offer, Progress};
use crate::wire::v1::{AUTHORIZED, BEATS_A_RECORD, PREAMBLE, beats};
use crate::wire::v2::hello::{self, Hello};
use log::{Level, log, warn};
use std::net::SocketAddr;
use std::time::Instant;

/// What the bytes that have come so far amount to.
enum Verdict {
    /// More must come.
    Undecided,
    /// There is more, but the others have their turn first.
    Busy,
    /// As many bytes as the passcode has, and perhaps some behind them.
    Complete,
    /// It left before it was done.
    Left,
}

impl Relay {
    fn unauthenticated(&mut self, key: Key) -> Option<&mut Unauthenticated> {
        match self.reactor.get_mut(key)?.0.state {
            State::Unauthenticated(it) => Some(it),
            _ => None,
        }
    }

    /// The turn of a deferred connection has come: to begin its handshake, or to have its passcode looked at.
    pub(super) fn has_its_turn(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(it) = self.unauthenticated(key) else { return };
        (it.is_deferred, it.until) = (false, now + AUTHENTICATION);
        let was_complete = !it.offer.bytes.is_empty();
        if was_complete { self.compare(key, true) } else { self.reactor.again(key) }
    }

    /// Goes on with handshake and passcode.
    pub(super) fn authenticate(&mut self, key: Key) {
        match self.examine(key) {
            Ok(Verdict::Undecided) => {}
            Ok(Verdict::Busy) => self.reactor.again(key),
            Ok(Verdict::Complete) => self.judge(key),
            Ok(Verdict::Left) => self.authentication_failed(key),
            Err(fault) => {
                self.handshake_failed(key, Port::Agent, &fault);
                self.authentication_failed(key);
            }
        }
    }

    fn examine(&mut self, key: Key) -> Result<Verdict, LinkError> {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Unauthenticated(it) }, ctx)) = self.reactor.get_mut(key) else {
            return Ok(Verdict::Undecided);
        };
        let Some(agents) = self.mappings.agents(it.place) else { return Ok(Verdict::Left) };
        let passcode = &agents.terms.passcode;
        if !link.handshake(ctx, now)? {
            return Ok(Verdict::Undecided);
        }
        let had_preamble = it.offer.has_preamble;
        let verdict = hear_passcode(link, &mut it.offer, passcode, ctx, now)?;
        match verdict {
            _ if had_preamble || !it.offer.has_preamble => {}
            // What comes of it is said in this turn as well, nearly always.
            Verdict::Complete => link.send_ahead(PREAMBLE, ctx, now)?,
            _ => link.send(PREAMBLE, ctx, now)?,
        }
        Ok(verdict)
    }

    /// A whole passcode has come. It is compared now, unless its network has tried too many different ones.
    fn judge(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(source) = self.source(key) else { return };
        let Self { reactor, rate_limit, .. } = self;
        let Some((SocketMut { state: State::Unauthenticated(it), .. }, _)) = reactor.get_mut(key) else { return };
        let permit = rate_limit.guess(source, &it.offer.bytes, it.until, now);
        if permit != Permit::Now {
            self.counters.rate_limited.add(Limited::Passcodes);
        }
        match permit {
            Permit::Now => self.compare(key, false),
            Permit::Never => self.reject(key, None),
            Permit::At(turn) => {
                (it.is_deferred, it.until) = (true, turn);
                reactor.wake_by(turn);
            }
        }
    }

    fn compare(&mut self, key: Key, waited: bool) {
        let Self { reactor, mappings, .. } = self;
        let Some(State::Unauthenticated(it)) = reactor.get(key).map(|socket| socket.state) else { return };
        let Some(agents) = mappings.agents(it.place) else { return };
        if agents.terms.passcode.matches(&it.offer.bytes) {
            self.authorize(key)
        } else {
            self.reject(key, Some(waited))
        }
    }

    fn authorize(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(peer) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        let is_within_share = self.is_within_share(peer.ip());
        let may_be_called = self.may_be_called(key);
        let hello = self.take_hello(key).map(|hello| Hello { calls: hello.calls && may_be_called, ..hello });
        let Some(it) = self.unauthenticated(key) else { return };
        let (place, has_preamble) = (it.place, it.offer.has_preamble);
        let behind = std::mem::take(&mut it.offer.behind);
        let Some(agents) = self.mappings.agents(place) else { return };
        if !agents.has_place() || !is_within_share {
            let (port, most) = (agents.binding.port, agents.terms.max_connections);
            if let Some(unsaid) = self.log.may_say(Topic::NoPlace(port), now) {
                let why = match is_within_share {
                    true => format!("all {most} places for agents of its mapping are taken (`maxconnections`)"),
                    false => format!("{} has most of all connections already", peer.ip()),
                };
                let place = self.mappings.place(place);
                warn!("{place}: agent {peer} was turned away, {why}{}", and_more(unsaid));
            }
            return self.reject_after(key, NO_PLACE, Source::new(peer.ip(), port), Some(place.pipe), &[]);
        }
        let (network, port) = (Network::of(peer.ip()), agents.binding.port);
        agents.count_in(network, hello.is_some());
        agents.wanted.has_come();
        let is_first = agents.authorized() == 1;
        let ticket = agents.free.join(key);
        self.counters.agents_authorized += 1;
        let topic = if is_first { Topic::FirstAgent(port) } else { Topic::Arrival(port) };
        if let Some(unsaid) = self.log.may_say(topic, now) {
            let (level, which) = if is_first { (Level::Info, "the first agent") } else { (Level::Debug, "agent") };
            log!(level, "{}: {which}, {peer}, is authorized{}", self.mappings.place(place), and_more(unsaid));
        }
        let mut agent = Agent::new(place, network, ticket, has_preamble.then(Marked::new), now);
        agent.framed = hello.as_ref().map(Self::framed);
        if let Some(left) = self.reactor.change(key, State::Agent(agent)) {
            self.left(left);
        }
        self.welcome(key, &behind, hello);
    }

    fn welcome(&mut self, key: Key, behind: &[u8], hello: Option<Hello>) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        link.trust();
        let sent = match hello {
            None => link.send(AUTHORIZED, ctx, now),
            Some(hello) => say_hello(link, hello, ctx, now),
        };
        if link.is_plain() && agent.marked.is_none() && agent.framed.is_none() {
            agent.welcome = Some(now + WELCOME);
            self.reactor.wake_by(now + WELCOME);
        }
        self.expect_leftovers(key);
        match sent {
            Ok(()) => {
                self.offer(key);
                self.hear_what_came_behind(key, behind);
            }
            Err(fault) => self.end(key, Cause::Failed(key, fault)),
        }
    }

    /// What stood in the same record as the passcode is the agent's first message.
    fn hear_what_came_behind(&mut self, key: Key, message: &[u8]) {
        let now = self.reactor.now;
        let beats = beats(message, BEATS_A_RECORD);
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return };
        agent.owe(beats);
        let place = agent.place;
        if beats > 0 || message.is_empty() {
            return;
        }
        let Duty::Joined(peer) = agent.duty else {
            self.mappings.count_discarded(place, message.len() as u64);
            return self.unsettle(key);
        };
        agent.received += message.len() as u64;
        self.mappings.count(place, message.len() as u64);
        let Some((socket, ctx)) = self.reactor.get_mut(peer) else { return };
        if let Err(fault) = send_payload(socket.link, message, ctx, now) {
            self.end(peer, Cause::Failed(peer, fault));
        }
    }

    /// Turns away who gave a wrong passcode: late, and without a byte. `None`: it was not even compared.
    fn reject(&mut self, key: Key, compared: Option<bool>) {
        let now = self.reactor.now;
        let Some(source) = self.source(key) else { return };
        let Self { reactor, rate_limit, mappings, log, .. } = self;
        let Some(socket) = reactor.get(key) else { return };
        let (State::Unauthenticated(it), peer) = (socket.state, socket.link.peer) else { return };
        let delay = match compared {
            Some(waited) => rate_limit.wrong(source, &it.offer.bytes, waited, now),
            None => rate_limit.reject(source, now),
        };
        let (place, pipe) = (it.place, it.place.pipe);
        if let Some(agents) = mappings.agents(place) {
            agents.rejected += 1;
            if let Some(unsaid) = log.may_say(Topic::Rejection(source), now) {
                let why = if compared.is_some() { "wrong passcode" } else { "too many different passcodes" };
                let place = mappings.place(place);
                warn!("{place}: agent {peer} rejected, {why}{}", and_more(unsaid));
            }
        }
        self.reject_after(key, delay, source, Some(pipe), &[]);
    }

    /// It ends without a whole passcode: it has left, was too late, or had to make room. It is counted; as rejected if a
    /// part of a passcode has come.
    pub(super) fn authentication_failed(&mut self, key: Key) {
        let now = self.reactor.now;
        let (Some(source), Some(socket)) = (self.source(key), self.reactor.get(key)) else { return };
        let (State::Unauthenticated(it), peer) = (socket.state, socket.link.peer) else { return };
        let (place, length, is_deferred) = (it.place, hello::length_before(&it.offer.bytes), it.is_deferred);
        if !is_deferred {
            self.rate_limit.abandoned(source, now);
        }
        if !is_deferred && length > 0 {
            self.count_part(place, source, peer, length);
        }
        self.close(key, Close::Now);
    }

    fn count_part(&mut self, place: PipePort, source: Source, peer: SocketAddr, length: usize) {
        let Some(agents) = self.mappings.agents(place) else { return };
        agents.rejected += 1;
        let expected = agents.terms.passcode.expose().len();
        if let Some(unsaid) = self.log.may_say(Topic::Rejection(source), self.reactor.now) {
            let more = and_more(unsaid);
            let place = self.mappings.place(place);
            warn!("{place}: agent {peer} rejected, its passcode has {length} of {expected} bytes{more}");
        }
    }

    /// Whose failures those of a connection are.
    fn source(&mut self, key: Key) -> Option<Source> {
        let socket = self.reactor.get(key)?;
        let State::Unauthenticated(it) = socket.state else { return None };
        Some(Source::new(socket.link.peer.ip(), self.mappings.agents(it.place)?.binding.port))
    }
}

/// Lets an agent in that speaks in frames: `AUTHORIZED`, and our own hello as the next message.
fn say_hello(link: &mut Link, hello: Hello, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
    let ours = Framed::hello(hello.calls, hello.token).encode();
    if link.is_plain() {
        link.send_ahead(AUTHORIZED, ctx, now)?;
    } else {
        link.send(AUTHORIZED, ctx, now)?;
    }
    link.send(&ours, ctx, now)
}

/// Takes in what belongs to the passcode, and to the preamble before it.
fn hear_passcode(
    link: &mut Link,
    offer: &mut Offer,
    passcode: &Secret,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Verdict, LinkError> {
    let is_plain = link.is_plain();
    // Records may be empty: without a bound one connection could keep the loop here for as long as it sends them.
    for _ in 0..MESSAGES_A_TURN {
        let missing = match offer.progress(passcode, is_plain) {
            Progress::Missing(missing) => missing,
            Progress::Preamble => continue,
            Progress::Complete => return Ok(Verdict::Complete),
        };
        let Offer { bytes, behind, .. } = &mut *offer;
        let got = link.receive(missing, ctx, now, |message| {
            let (head, rest) = message.split_at(missing.min(message.len()));
            bytes.extend_from_slice(head);
            behind.extend_from_slice(rest);
        })?;
        match got {
            Input::Data => {}
            Input::WouldBlock | Input::Starved => return Ok(Verdict::Undecided),
            Input::Eof => return Ok(Verdict::Left),
        }
    }
    Ok(Verdict::Busy)
}
