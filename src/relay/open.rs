//! Opening, closing and describing mappings, as the control thread asks.

use super::Relay;
use super::command::{AgentCounts, OpenError, PipeStatus, Totals, Traffic, UserCounts};
use super::listeners::LeadsTo;
use super::pipe::{Ends, Pipe, PipeKey, Place};
use super::state::State;
use crate::mapping::{Kind, Mapping};
use crate::net::reactor::Key;
use log::info;

impl Relay {
    /// Both ports, or nothing.
    pub(super) fn open(&mut self, mapping: Mapping) -> Result<(), OpenError> {
        let Some(pipe) = self.enlist(mapping) else { return Ok(()) };
        match self.bind(pipe).into_iter().next() {
            None => Ok(()),
            Some(error) => {
                self.forget(pipe);
                Err(error)
            }
        }
    }

    /// Whatever ports can be bound now; the others are tried again every second.
    pub(super) fn restore(&mut self, mapping: Mapping) -> Vec<OpenError> {
        self.enlist(mapping).map(|pipe| self.bind(pipe)).unwrap_or_default()
    }

    /// Closes the ports and every connection of the mapping.
    pub(super) fn close_pipe(&mut self, id: &str) {
        self.close_direct(id);
        if let Some(&pipe) = self.ids.get(id) {
            let members: Vec<Key> =
                self.reactor.iter().filter(|(_, s)| s.state.pipe() == Some(pipe)).map(|(key, _)| key).collect();
            for key in members {
                if let Some(State::Rejected(_)) = self.state(key) {
                    self.close_rejected(key);
                    continue;
                }
                // The whole pipe goes: its queues and counts with it.
                match self.take_state(key) {
                    // Interrupted, and told so: neither close_notify nor, without TLS, FIN.
                    Some(State::Joined { .. } | State::Served { .. } | State::HalfClosed { .. }) => self.remove(key),
                    Some(State::Closing { .. }) => self.remove(key),
                    _ => self.discard(key),
                }
            }
            self.forget(pipe);
        }
    }

    /// What is known of a mapping.
    pub(super) fn status(&self, id: &str) -> Option<PipeStatus> {
        Some(self.pipes.get(*self.ids.get(id)?)?.status())
    }

    /// The same of all mappings, by id.
    pub(super) fn status_of_all(&self) -> Vec<(String, PipeStatus)> {
        self.pipes.iter().map(|(_, pipe)| (pipe.id.clone(), pipe.status())).collect()
    }

    /// What is known of the loop itself.
    pub(super) fn totals(&self) -> Totals {
        let rejected = self.past.rejected;
        let mut totals = Totals {
            connections: self.connections(),
            most_connections: self.setup.connections,
            controllers: self.controllers.len(),
            buffers: self.reactor.desk.pool.used(),
            most_buffers: self.reactor.desk.pool.size(),
            pauses: self.listeners.paused_times(),
            inactive: 0,
            agents: AgentCounts { rejected, ..AgentCounts::default() },
            users: UserCounts::default(),
            rejecting: self.rejected.len(),
            peers: self.broker.peers(),
            closing: self.reactor.iter().filter(|(_, s)| matches!(s.state, State::Closing { .. })).count(),
            traffic: self.traffic(),
            rates: self.meter.rates(),
            expiry: self.setup.tls.as_ref().and_then(|tls| tls.expiry),
        };
        for PipeStatus { bound, agents, users, .. } in self.pipes.iter().map(|(_, pipe)| pipe.status()) {
            totals.inactive += usize::from(bound != [true, true]);
            totals.agents = agents.into_iter().fold(totals.agents, AgentCounts::plus);
            totals.users = totals.users.plus(users);
        }
        totals
    }

    /// What all mappings have carried, those that have been removed included.
    pub(super) fn traffic(&self) -> Traffic {
        self.pipes.iter().map(|(_, pipe)| pipe.traffic).fold(self.past.traffic, Traffic::plus)
    }

    /// Tries the ports again that could not be bound.
    pub(super) fn bind_missing(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.listen_for_peers();
        let lacking = |pipe: &mut Pipe| pipe.doors().iter().any(|door| door.listener.is_none());
        let keys: Vec<PipeKey> = self.pipes.iter_mut().filter_map(|(key, p)| lacking(p).then_some(key)).collect();
        for key in keys {
            if self.bind(key).is_empty() {
                if let Some(pipe) = self.pipes.get(key) {
                    info!("Mapping {}: its ports could be bound at last", pipe.id);
                }
            }
        }
    }

    /// `None`: a direct entry, which belongs to the broker.
    fn enlist(&mut self, mapping: Mapping) -> Option<PipeKey> {
        if let Mapping { id, kind: Kind::Direct { passkey } } = mapping {
            self.open_direct(id, passkey);
            return None;
        }
        let pipe = Pipe::new(mapping)?;
        let id = pipe.id.clone();
        let key = self.pipes.insert(pipe);
        self.ids.insert(id, key);
        Some(key)
    }

    fn forget(&mut self, pipe: PipeKey) {
        if let Some(mut pipe) = self.pipes.try_remove(pipe) {
            self.ids.remove(&pipe.id);
            self.past.traffic = self.past.traffic.plus(pipe.traffic);
            self.past.rejected += pipe.status().agents.map(|agents| agents.rejected).iter().sum::<u64>();
            for door in pipe.doors() {
                if let Some(number) = door.listener.take() {
                    self.listeners.close(number);
                }
            }
        }
    }

    /// Binds those ports of the pipe that are not bound yet, and returns what went wrong.
    fn bind(&mut self, key: PipeKey) -> Vec<OpenError> {
        let Some(pipe) = self.pipes.get_mut(key) else { return Vec::new() };
        let second = match pipe.ends {
            Ends::Public { .. } => LeadsTo::Users(key),
            Ends::Private(_) => LeadsTo::Agents(Place { pipe: key, side: 1 }),
        };
        let first = LeadsTo::Agents(Place { pipe: key, side: 0 });
        let mut errors = Vec::new();
        for (door, leads_to) in pipe.doors().into_iter().zip([first, second]) {
            if door.listener.is_none() {
                match self.listeners.bind(self.setup.listen, door.port, leads_to, &self.reactor) {
                    Ok(number) => door.listener = Some(number),
                    Err(cause) => errors.push(OpenError { port: door.port, cause }),
                }
            }
        }
        errors
    }
}

impl State {
    /// The pipe that a connection belongs to, and goes with.
    pub(super) fn pipe(&self) -> Option<PipeKey> {
        match self {
            Self::Deferred { place, .. } | Self::Greeting { place, .. } => Some(place.pipe),
            Self::Rejected(rejected) => rejected.pipe,
            Self::Free { agent, .. } | Self::Joined { agent, .. } => Some(agent.place.pipe),
            Self::Silent { pipe, .. }
            | Self::Waiting { pipe, .. }
            | Self::Served { pipe, .. }
            | Self::HalfClosed { pipe, .. } => Some(*pipe),
            Self::Closing { pipe, .. } => *pipe,
            _ => None,
        }
    }
}
