//! Agent ports, up to the passcode: handshake, passcode, brake (docs/protocol.md, section 4).
//!
//! A stranger costs little: no relay buffer, one try, a deadline, and a place in a queue that pushes out the oldest.

use super::Relay;
use super::listeners::greeting;
use super::state::{Agent, State};
use crate::limits::WELCOME;
use crate::net::link::{Fault, Got};
use crate::net::pump::send_payload;
use crate::net::reactor::Key;
use crate::net::wire::{AUTHORIZED, beats};
use crate::throttle::and_more;
use log::{info, warn};

/// Messages of one stranger that are looked at in one turn.
const READS: usize = 8;

/// What the bytes that a stranger has sent so far amount to.
enum Verdict {
    /// More must come.
    Undecided,
    /// There is more, but the others have their turn first.
    Busy,
    /// The passcode, and what stood behind it in the same record.
    Right(Vec<u8>),
    Wrong,
    /// It left before it was done.
    Left,
}

impl Relay {
    /// Its turn has come: from now on it has as long as any other.
    pub(super) fn release_brake(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(State::Braked { place, ticket, .. }) = self.take_state(key) else { return };
        self.set_state(key, greeting(place, ticket, now));
        self.reactor.again(key);
    }

    /// Goes on with a stranger's handshake and passcode.
    pub(super) fn greet(&mut self, key: Key) {
        match self.examine(key) {
            Ok(Verdict::Undecided) => {}
            Ok(Verdict::Busy) => self.reactor.again(key),
            Ok(Verdict::Right(behind)) => self.authorize(key, &behind),
            Ok(Verdict::Wrong) => self.reject(key),
            Ok(Verdict::Left) | Err(_) => self.turn_away(key),
        }
    }

    fn examine(&mut self, key: Key) -> Result<Verdict, Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Verdict::Undecided) };
        let State::Greeting { place, offered, .. } = &mut socket.state else { return Ok(Verdict::Undecided) };
        let Some(agents) = self.pipes.get_mut(place.pipe).and_then(|pipe| pipe.agents(place.side)) else {
            return Ok(Verdict::Left);
        };
        let passcode = &agents.terms.passcode;
        let expected = passcode.expose().len();
        if !socket.link.handshake(desk, now)? {
            return Ok(Verdict::Undecided);
        }
        // Records may be empty: without a bound a stranger could keep the loop here for as long as it sends them.
        for _ in 0..READS {
            let missing = expected.saturating_sub(offered.len());
            let mut behind = Vec::new();
            let got = socket.link.receive(missing.max(1), desk, now, |message| {
                let (head, rest) = message.split_at(missing.min(message.len()));
                offered.extend_from_slice(head);
                behind.extend_from_slice(rest);
            })?;
            if offered.len() == expected {
                return Ok(if passcode.matches(offered) { Verdict::Right(behind) } else { Verdict::Wrong });
            }
            match got {
                Got::Some => {}
                Got::Dry | Got::Starved => return Ok(Verdict::Undecided),
                Got::End => return Ok(Verdict::Left),
            }
        }
        Ok(Verdict::Busy)
    }

    fn authorize(&mut self, key: Key, behind: &[u8]) {
        let now = self.reactor.now;
        let Some(State::Greeting { place, ticket, .. }) = self.take_state(key) else { return };
        let Some(agents) = self.agents(place) else { return };
        agents.strangers.leave(ticket);
        if !agents.has_place() {
            let (port, most, unsaid) = (agents.door.port, agents.terms.max_connections, agents.full.may_say(now));
            if let Some(unsaid) = unsaid {
                warn!("Port {port}: an agent was turned away, {most} are connected{}", and_more(unsaid));
            }
            self.discard(key);
            return;
        }
        agents.authorized += 1;
        let (port, said) = (agents.door.port, agents.arrivals.may_say(now));
        if let (Some(unsaid), Some(socket)) = (said, self.reactor.get(key)) {
            info!("Port {port}: agent {} authorized{}", socket.link.peer, and_more(unsaid));
        }
        self.welcome(key, Agent::new(place), behind);
    }

    fn welcome(&mut self, key: Key, mut agent: Agent, behind: &[u8]) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let sent = socket.link.send(AUTHORIZED, desk, now);
        if socket.link.is_plain() {
            agent.welcome = Some(now + WELCOME);
            self.reactor.wake_by(now + WELCOME);
        }
        self.set_free(key, agent);
        match sent {
            Ok(()) => {
                self.offer(key);
                self.hear_what_came_behind(key, behind);
            }
            Err(_) => self.abort(key),
        }
    }

    /// What stood in the same record as the passcode is the agent's first message.
    fn hear_what_came_behind(&mut self, key: Key, message: &[u8]) {
        let now = self.reactor.now;
        let beats = beats(message);
        let (agent, peer) = match self.reactor.get_mut(key).map(|(socket, _)| &mut socket.state) {
            Some(State::Free { agent, .. }) => (agent, None),
            Some(State::Joined { agent, peer }) => (agent, Some(*peer)),
            _ => return,
        };
        agent.owe(beats);
        let place = agent.place;
        match peer {
            _ if beats > 0 || message.is_empty() => {}
            None => self.count_discarded(place, message.len() as u64),
            Some(peer) => {
                self.count_payload(place, message.len() as u64);
                let Some((socket, desk)) = self.reactor.get_mut(peer) else { return };
                if send_payload(&mut socket.link, message, desk, now).is_err() {
                    self.abort(peer);
                }
            }
        }
    }

    /// Closes a stranger that gave a wrong passcode, at once and without a byte.
    fn reject(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(socket) = self.reactor.get(key) else { return };
        let peer = socket.link.peer;
        let State::Greeting { place, .. } = socket.state else { return };
        if let Some(agents) = self.agents(place) {
            agents.rejected += 1;
            let port = agents.door.port;
            if let Some(unsaid) = agents.brake.failed(peer.ip(), now) {
                warn!("Port {port}: agent {peer} rejected, wrong passcode{}", and_more(unsaid));
            }
        }
        self.turn_away(key);
    }

    /// Closes a stranger. It leaves the queue, and the peer sees a FIN rather than a reset where that is cheap.
    pub(super) fn turn_away(&mut self, key: Key) {
        if let Some(State::Braked { place, ticket, .. } | State::Greeting { place, ticket, .. }) = self.take_state(key)
        {
            if let Some(agents) = self.agents(place) {
                agents.strangers.leave(ticket);
            }
        }
        self.discard(key);
    }
}
