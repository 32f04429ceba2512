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
use super::counters::Refused;
use super::listeners::LeadsTo;
use super::state::{API, Stage, State, User};
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{CONNECTIONS_LEFT, EVICTED_AT_ONCE, EVICTION_PAUSE, SET_ASIDE};
use crate::net::reactor::{Close, Entry, Key, Socket};
use crate::net::service::Service;
use crate::network::Network;
use std::net::IpAddr;
use std::time::Instant;

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
        self.reactor.len() - self.api.connections() - self.reactor.closing_in(API)
    }

    /// How many there may be: fewer than the settings say, where there are so many ports that descriptors would not do.
    pub(super) fn most_connections(&self) -> usize {
        self.setup.connections.min(self.setup.sockets.saturating_sub(self.listeners.count()))
    }

    /// How many more ports may be bound: some connections must remain possible.
    pub(super) fn ports_left(&self) -> usize {
        let connections = self.connections().max(CONNECTIONS_LEFT);
        self.setup.sockets.saturating_sub(connections + self.listeners.count())
    }

    /// Whether one more may be accepted that leads there, and what is to be closed for it.
    pub(super) fn room(&mut self, leads_to: LeadsTo) -> Room {
        let most = match leads_to {
            // They have places of their own.
            LeadsTo::Controllers | LeadsTo::Monitors => return Room::Free,
            LeadsTo::Agents(_) => self.most_connections(),
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
        let has = self.reactor.entries().filter(|(_, entry)| is_counted(entry) && network_of(entry) == network);
        has.count() <= self.most_connections() / 2
    }

    /// As many connections may be in use before the others are only for agents, and for networks that have few.
    fn unreserved(&self) -> usize {
        let most = self.most_connections();
        most - most / SET_ASIDE
    }

    fn room_after_eviction(&mut self) -> Room {
        let now = self.reactor.now;
        if self.next_eviction.is_some_and(|next| now < next) {
            return Room::None;
        }
        let at_once = (self.most_connections() / EVICTED_AT_ONCE).max(1);
        let victims = first_to_go(self.candidates(), at_once);
        if victims.is_empty() {
            self.next_eviction = Some(now + EVICTION_PAUSE);
            return Room::None;
        }
        Room::After(victims)
    }

    /// Makes the room that was found.
    pub(super) fn evict(&mut self, victims: Vec<Key>) {
        let first = victims.first().and_then(|&first| self.reactor.links().find(|(key, _)| *key == first));
        if let Some((_, link)) = first {
            let (peer, most) = (link.peer, self.most_connections());
            self.listeners.log_eviction(peer, most, self.reactor.now);
        }
        for key in victims {
            self.reactor.abort_if_closing(key);
            match self.reactor.get(key).map(|socket| socket.state) {
                Some(State::User(_)) => self.refuse_user(key, Refused::Evicted),
                Some(State::Rejected(_)) => self.close_rejected(key),
                _ => self.close(key, Close::Now),
            }
        }
    }

    fn candidates(&self) -> Vec<(Network, Candidate<Instant, Key>)> {
        let candidate = |(key, entry): (Key, Entry<'_, State>)| {
            // Those of one rank have the same time: whose is over sooner is older.
            let (rank, age) = match &entry {
                Entry::Active(socket) => (rank(socket.state)?, socket.state.deadline(socket.link, None)?),
                Entry::Closing(link, closing) => (CLOSING, closing.deadline(link)),
            };
            Some((network_of(&entry), Candidate { rank, age, key }))
        };
        self.reactor.entries().filter_map(candidate).collect()
    }
}

fn network_of(entry: &Entry<'_, State>) -> Network {
    let (Entry::Active(Socket { link, .. }) | Entry::Closing(link, _)) = entry;
    Network::of(link.peer.ip())
}

/// Counted towards the limit of connections, that is: not of the API.
fn is_counted(entry: &Entry<'_, State>) -> bool {
    !matches!(entry, Entry::Active(Socket { state: State::Api(_) | State::Backend(_), .. }))
}

/// The rank of what is only being delivered.
const CLOSING: u8 = 5;

/// In what order the connections of one network go. `None`: never.
fn rank(state: &State) -> Option<u8> {
    match state {
        State::Rejected(_) => Some(0),
        State::Unauthenticated(_) => Some(1),
        State::User(User { stage: Stage::Proxied { .. } | Stage::Silent { .. }, .. }) => Some(2),
        State::User(User { stage: Stage::Waiting { .. }, .. }) => Some(3),
        State::Peer(_) => Some(4),
        State::Agent(_) | State::User(_) | State::Api(_) | State::Backend(_) => None,
    }
}
