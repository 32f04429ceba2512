//! The limit of all connections: who may come when it is reached, and who is closed for it (docs/limits.md,
//! "Fairness").
//!
//! Connections that are being served are never closed for others: authorized agents and joined users. All the
//! others compete. As everywhere, the network with most of them loses some: first those that were rejected, then
//! the unauthenticated, silent users, those that wait for an agent, peers at the broker, and last what is only
//! being delivered; of the same kind the oldest.
//!
//! The search looks at every connection. So it finds not one but a 64th of all at once, and if there was nothing to
//! find, the next one has to wait: a crowd cannot make it expensive.

use super::Relay;
use super::listeners::LeadsTo;
use super::state::State;
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{EVICTED_AT_ONCE, EVICTION_PAUSE, SET_ASIDE};
use crate::net::reactor::{Key, Socket};
use crate::network::Network;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whether one more connection may be accepted.
pub(super) enum Room {
    Free,
    /// If these are closed.
    After(Vec<Key>),
    None,
}

impl Relay {
    /// Connections of agents, users and peers at the broker.
    pub(super) fn connections(&self) -> usize {
        self.reactor.len() - self.controllers.len() - self.backends - self.outsiders.len()
    }

    /// Whether one more may be accepted that leads there, and what is to be closed for it.
    pub(super) fn room(&mut self, leads_to: LeadsTo) -> Room {
        let most = match leads_to {
            // Controllers have places of their own.
            LeadsTo::Controllers => return Room::Free,
            LeadsTo::Agents(_) => self.setup.connections,
            LeadsTo::Users(_) | LeadsTo::Broker => self.unreserved(),
        };
        if self.connections() < most { Room::Free } else { self.room_after_eviction() }
    }

    /// Whether one more agent from `address` may be authorized: when nearly all connections are in use, the last
    /// ones are set aside for networks that have few.
    pub(super) fn is_within_share(&self, address: IpAddr) -> bool {
        if self.connections() <= self.unreserved() {
            return true;
        }
        let network = Network::of(address);
        let has = self.reactor.iter().filter(|(_, socket)| is_counted(&socket.state) && network_of(socket) == network);
        has.count() <= self.setup.connections / 2
    }

    /// As many connections may be in use before the others are only for agents, and for networks that have few.
    fn unreserved(&self) -> usize {
        self.setup.connections - self.setup.connections / SET_ASIDE
    }

    fn room_after_eviction(&mut self) -> Room {
        let now = self.reactor.now;
        if self.next_eviction.is_some_and(|next| now < next) {
            return Room::None;
        }
        let at_once = (self.setup.connections / EVICTED_AT_ONCE).max(1);
        let victims = first_to_go(self.candidates(), at_once);
        if victims.is_empty() {
            self.next_eviction = Some(now + EVICTION_PAUSE);
            return Room::None;
        }
        Room::After(victims)
    }

    /// Makes the room that was found.
    pub(super) fn evict(&mut self, victims: Vec<Key>) {
        if let Some(first) = victims.first().and_then(|&key| self.reactor.get(key)) {
            self.listeners.log_eviction(first.link.peer, self.setup.connections, self.reactor.now);
        }
        victims.into_iter().for_each(|key| self.abort(key, &"the limit of connections is reached"));
    }

    fn candidates(&self) -> Vec<(Network, Candidate<Instant, Key>)> {
        let candidate = |(key, socket): (Key, &Socket<State>)| {
            let rank = rank(&socket.state)?;
            // Those of one rank have the same time: whose is over sooner is older.
            let age = socket.state.deadline(&socket.link, None, Duration::ZERO)?;
            Some((network_of(socket), Candidate { rank, age, key }))
        };
        self.reactor.iter().filter_map(candidate).collect()
    }
}

fn network_of(socket: &Socket<State>) -> Network {
    Network::of(socket.link.peer.ip())
}

/// Counted towards the limit of connections, that is: not of the API.
fn is_counted(state: &State) -> bool {
    !matches!(state, State::Api(_) | State::Backend(_))
}

/// In what order the connections of one network go. `None`: never.
fn rank(state: &State) -> Option<u8> {
    match state {
        State::Rejected(_) => Some(0),
        State::Deferred { .. } | State::Greeting { .. } => Some(1),
        State::Silent { .. } => Some(2),
        State::Waiting { .. } => Some(3),
        State::Peer(_) => Some(4),
        State::Closing { .. } => Some(5),
        State::Free { .. } | State::Joined { .. } | State::Served { .. } | State::HalfClosed { .. } => None,
        State::Api(_) | State::Backend(_) => None,
    }
}
