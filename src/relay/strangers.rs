//! Agent ports, up to the passcode: handshake, passcode, rejection (docs/protocol.md, section 4).
//!
//! A stranger costs little: no relay buffer, one try, a deadline, and a place in a queue that pushes out the oldest.

use super::offer::{Offer, Progress};
use super::rate_limit::{Permit, Source};
use super::state::{Agent, State};
use super::{Relay, Topic};
use crate::limits::{GREETING, NO_PLACE, WELCOME};
use crate::net::buffers::Desk;
use crate::net::link::{Fault, Got, Link};
use crate::net::marked::Marked;
use crate::net::pump::send_payload;
use crate::net::reactor::Key;
use crate::net::wire::{AUTHORIZED, BEATS_A_RECORD, PREAMBLE, beats};
use crate::secret::Secret;
use crate::throttle::and_more;
use log::{info, warn};
use std::time::Instant;

/// Messages of one stranger that are looked at in one turn.
const READS: usize = 8;

/// What the bytes that a stranger has sent so far amount to.
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
    /// The turn of a deferred connection has come: to begin its handshake, or to have its passcode looked at.
    pub(super) fn has_its_turn(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(State::Deferred { place, ticket, offer, .. }) = self.take_state(key) else { return };
        let was_complete = !offer.bytes.is_empty();
        self.set_state(key, State::Greeting { place, ticket, until: now + GREETING, offer });
        if was_complete { self.compare(key, true) } else { self.reactor.again(key) }
    }

    /// Goes on with a stranger's handshake and passcode.
    pub(super) fn greet(&mut self, key: Key) {
        match self.examine(key) {
            Ok(Verdict::Undecided) => {}
            Ok(Verdict::Busy) => self.reactor.again(key),
            Ok(Verdict::Complete) => self.judge(key),
            Ok(Verdict::Left) | Err(_) => {
                self.count_failure(key);
                self.turn_away(key);
            }
        }
    }

    fn examine(&mut self, key: Key) -> Result<Verdict, Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Verdict::Undecided) };
        let State::Greeting { place, offer, .. } = &mut socket.state else { return Ok(Verdict::Undecided) };
        let Some(agents) = self.pipes.get_mut(place.pipe).and_then(|pipe| pipe.agents(place.side)) else {
            return Ok(Verdict::Left);
        };
        let passcode = &agents.terms.passcode;
        if !socket.link.handshake(desk, now)? {
            return Ok(Verdict::Undecided);
        }
        let had_preamble = offer.has_preamble;
        let verdict = hear_passcode(&mut socket.link, offer, passcode, desk, now)?;
        match verdict {
            _ if had_preamble || !offer.has_preamble => {}
            // What comes of it is said in this turn as well, nearly always.
            Verdict::Complete => socket.link.send_ahead(PREAMBLE, desk, now)?,
            _ => socket.link.send(PREAMBLE, desk, now)?,
        }
        Ok(verdict)
    }

    /// A whole passcode has come. It is compared now, unless its network has tried too many different ones.
    fn judge(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(source) = self.source(key) else { return };
        let Self { reactor, rate_limit, .. } = self;
        let Some(State::Greeting { until, offer, .. }) = reactor.get(key).map(|socket| &socket.state) else { return };
        match rate_limit.guess(source, &offer.bytes, *until, now) {
            Permit::Now => self.compare(key, false),
            Permit::Never => self.reject(key, None),
            Permit::At(turn) => {
                let Some(State::Greeting { place, ticket, offer, .. }) = self.take_state(key) else { return };
                self.set_state(key, State::Deferred { place, ticket, turn, offer });
                self.reactor.wake_by(turn);
            }
        }
    }

    fn compare(&mut self, key: Key, waited: bool) {
        let Some(State::Greeting { place, offer, .. }) = self.reactor.get(key).map(|socket| &socket.state) else {
            return;
        };
        let Some(agents) = self.pipes.get_mut(place.pipe).and_then(|pipe| pipe.agents(place.side)) else { return };
        if agents.terms.passcode.matches(&offer.bytes) { self.authorize(key) } else { self.reject(key, Some(waited)) }
    }

    fn authorize(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer.ip()) else { return };
        let is_within_share = self.is_within_share(address);
        let Some(State::Greeting { place, ticket, offer, .. }) = self.take_state(key) else { return };
        let Some(agents) = self.agents(place) else { return };
        agents.strangers.leave(ticket);
        if !agents.has_place() || !is_within_share {
            let (port, most) = (agents.door.port, agents.terms.max_connections);
            if let Some(unsaid) = self.log.may_say(Topic::NoPlace(port), now) {
                let why = match is_within_share {
                    true => format!("{most} are connected"),
                    false => format!("{address} has most of all connections already"),
                };
                warn!("Port {port}: an agent was turned away, {why}{}", and_more(unsaid));
            }
            return self.reject_after(key, NO_PLACE, Source::new(address, port), Some(place.pipe), &[]);
        }
        agents.count_in(address);
        let port = agents.door.port;
        if let (Some(unsaid), Some(socket)) = (self.log.may_say(Topic::Arrival(port), now), self.reactor.get(key)) {
            info!("Port {port}: agent {} authorized{}", socket.link.peer, and_more(unsaid));
        }
        let marked = offer.has_preamble.then(Marked::new);
        self.welcome(key, Agent::new(place, marked, now), &offer.behind);
    }

    fn welcome(&mut self, key: Key, mut agent: Agent, behind: &[u8]) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let sent = socket.link.send(AUTHORIZED, desk, now);
        if socket.link.is_plain() && agent.marked.is_none() {
            agent.welcome = Some(now + WELCOME);
            self.reactor.wake_by(now + WELCOME);
        }
        self.set_free(key, agent);
        self.expect_leftovers(key);
        match sent {
            Ok(()) => {
                self.offer(key);
                self.hear_what_came_behind(key, behind);
            }
            Err(fault) => self.abort(key, &fault),
        }
    }

    /// What stood in the same record as the passcode is the agent's first message.
    fn hear_what_came_behind(&mut self, key: Key, message: &[u8]) {
        let now = self.reactor.now;
        let beats = beats(message, BEATS_A_RECORD);
        let (agent, peer) = match self.reactor.get_mut(key).map(|(socket, _)| &mut socket.state) {
            Some(State::Free { agent, .. }) => (agent, None),
            Some(State::Joined { agent, peer }) => (agent, Some(*peer)),
            _ => return,
        };
        agent.owe(beats);
        let place = agent.place;
        match peer {
            _ if beats > 0 || message.is_empty() => {}
            None => {
                self.count_discarded(place, message.len() as u64);
                self.unsettle(key);
            }
            Some(peer) => {
                self.count_payload(place, message.len() as u64);
                let Some((socket, desk)) = self.reactor.get_mut(peer) else { return };
                if let Err(fault) = send_payload(&mut socket.link, message, desk, now) {
                    self.abort(peer, &fault);
                }
            }
        }
    }

    /// Turns away a stranger that gave a wrong passcode: late, and without a byte. `None`: it was not even compared.
    fn reject(&mut self, key: Key, compared: Option<bool>) {
        let now = self.reactor.now;
        let (Some(source), Some(peer)) = (self.source(key), self.reactor.get(key).map(|socket| socket.link.peer))
        else {
            return;
        };
        let Some(State::Greeting { place, ticket, offer, .. }) = self.take_state(key) else { return };
        let delay = match compared {
            Some(waited) => self.rate_limit.wrong(source, &offer.bytes, waited, now),
            None => self.rate_limit.reject(source, now),
        };
        if let Some(agents) = self.agents(place) {
            agents.strangers.leave(ticket);
            agents.rejected += 1;
            let port = agents.door.port;
            if let Some(unsaid) = self.log.may_say(Topic::Rejection(source), now) {
                let why = if compared.is_some() { "wrong passcode" } else { "too many different passcodes" };
                warn!("Port {port}: agent {peer} rejected, {why}{}", and_more(unsaid));
            }
        }
        self.reject_after(key, delay, source, Some(place.pipe), &[]);
    }

    /// It has not shown its passcode in time. The time that it had was slow enough.
    pub(super) fn greeting_is_late(&mut self, key: Key) {
        self.count_failure(key);
        self.turn_away(key);
    }

    /// All places of those that have not shown a passcode are taken, and this one is the first to leave.
    pub(super) fn push_out_unauthenticated(&mut self, key: Key) {
        self.count_failure(key);
        self.turn_away(key);
    }

    /// Counts a connection that ends without a whole passcode; one with a part of it as rejected.
    fn count_failure(&mut self, key: Key) {
        let now = self.reactor.now;
        let (Some(source), Some(socket)) = (self.source(key), self.reactor.get(key)) else { return };
        let peer = socket.link.peer;
        let State::Greeting { place, offer, .. } = &socket.state else { return };
        let (place, length) = (*place, offer.bytes.len());
        self.rate_limit.abandoned(source, now);
        if length == 0 {
            return;
        }
        let Some(agents) = self.agents(place) else { return };
        agents.rejected += 1;
        let (port, expected) = (agents.door.port, agents.terms.passcode.expose().len());
        if let Some(unsaid) = self.log.may_say(Topic::Rejection(source), now) {
            let more = and_more(unsaid);
            warn!("Port {port}: agent {peer} rejected, its passcode has {length} of {expected} bytes{more}");
        }
    }

    /// Whose failures a stranger's are.
    fn source(&mut self, key: Key) -> Option<Source> {
        let socket = self.reactor.get(key)?;
        let (State::Greeting { place, .. } | State::Deferred { place, .. }) = socket.state else { return None };
        let address = socket.link.peer.ip();
        Some(Source::new(address, self.agents(place)?.door.port))
    }

    /// Closes a stranger. It leaves the queue, and the peer sees a FIN rather than a reset where that is cheap.
    pub(super) fn turn_away(&mut self, key: Key) {
        if let Some(State::Deferred { place, ticket, .. } | State::Greeting { place, ticket, .. }) =
            self.take_state(key)
        {
            if let Some(agents) = self.agents(place) {
                agents.strangers.leave(ticket);
            }
        }
        self.discard(key);
    }
}

/// Takes in what belongs to the passcode, and to the preamble before it.
fn hear_passcode(
    link: &mut Link,
    offer: &mut Offer,
    passcode: &Secret,
    desk: &mut Desk,
    now: Instant,
) -> Result<Verdict, Fault> {
    let is_plain = link.is_plain();
    // Records may be empty: without a bound a stranger could keep the loop here for as long as it sends them.
    for _ in 0..READS {
        let missing = match offer.progress(passcode, is_plain) {
            Progress::Missing(missing) => missing,
            Progress::Preamble => continue,
            Progress::Complete => return Ok(Verdict::Complete),
        };
        let Offer { bytes, behind, .. } = &mut *offer;
        let got = link.receive(missing, desk, now, |message| {
            let (head, rest) = message.split_at(missing.min(message.len()));
            bytes.extend_from_slice(head);
            behind.extend_from_slice(rest);
        })?;
        match got {
            Got::Some => {}
            Got::Dry | Got::Starved => return Ok(Verdict::Undecided),
            Got::End => return Ok(Verdict::Left),
        }
    }
    Ok(Verdict::Busy)
}
