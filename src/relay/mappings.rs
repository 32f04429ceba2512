//! The open mappings that have ports, and what is remembered of those that have been removed. No I/O.

use super::command::{AgentCounts, PipeStatus, Traffic, UserCounts};
use super::pipe::{Agents, Pipe, PipeKey, PipePort, Users};
use crate::mapping::Mapping;
use slab::Slab;
use std::collections::HashMap;
use std::time::Duration;

/// All open mappings.
#[derive(Default)]
pub(super) struct Mappings {
    pipes: Slab<Pipe>,
    ids: HashMap<String, PipeKey>,
    removed: Removed,
}

/// What mappings have counted that have been removed.
#[derive(Default)]
struct Removed {
    traffic: Traffic,
    /// Wrong passcodes.
    rejected: u64,
}

impl Mappings {
    /// `None`: a direct entry, which has no ports.
    pub(super) fn insert(&mut self, mapping: Mapping) -> Option<PipeKey> {
        let pipe = Pipe::new(mapping)?;
        let id = pipe.id.clone();
        let key = self.pipes.insert(pipe);
        self.ids.insert(id, key);
        Some(key)
    }

    /// What it has counted is kept.
    pub(super) fn remove(&mut self, key: PipeKey) -> Option<Pipe> {
        let pipe = self.pipes.try_remove(key)?;
        self.ids.remove(&pipe.id);
        self.removed.traffic = self.removed.traffic.plus(pipe.traffic);
        self.removed.rejected += pipe.status().agents.map(|agents| agents.rejected).iter().sum::<u64>();
        Some(pipe)
    }

    pub(super) fn find(&self, id: &str) -> Option<PipeKey> {
        self.ids.get(id).copied()
    }

    pub(super) fn get(&self, key: PipeKey) -> Option<&Pipe> {
        self.pipes.get(key)
    }

    pub(super) fn get_mut(&mut self, key: PipeKey) -> Option<&mut Pipe> {
        self.pipes.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PipeKey, &Pipe)> {
        self.pipes.iter()
    }

    /// The agent port at `place`, if the mapping is still open.
    pub(super) fn agents(&mut self, place: PipePort) -> Option<&mut Agents> {
        self.pipes.get_mut(place.pipe)?.agents(place.side)
    }

    /// The user port of a public pipe, if the mapping is still open.
    pub(super) fn users(&mut self, pipe: PipeKey) -> Option<&mut Users> {
        self.pipes.get_mut(pipe)?.users()
    }

    /// A mapping as the log has it: `Mapping ID (NAME)`.
    pub(super) fn name(&self, key: PipeKey) -> String {
        self.pipes.get(key).map(Pipe::name).unwrap_or_default()
    }

    /// One of its ports: `Mapping ID (NAME), port PORT`.
    pub(super) fn place(&self, place: PipePort) -> String {
        self.pipes
            .get(place.pipe)
            .map_or_else(String::new, |pipe| format!("{}, port {}", pipe.name(), pipe.port(place.side)))
    }

    /// The port at `place`.
    pub(super) fn port(&self, place: PipePort) -> Option<u16> {
        Some(self.pipes.get(place.pipe)?.port(place.side))
    }

    /// How long an agent may be silent; `None`: for ever.
    pub(super) fn absence(&self, place: PipePort) -> Option<Duration> {
        self.pipes.get(place.pipe)?.absence(place.side)
    }

    /// Counts payload that came in at `place` and went out on the other side.
    pub(super) fn count(&mut self, place: PipePort, payload: u64) {
        if let Some(pipe) = self.pipes.get_mut(place.pipe) {
            pipe.count(place.side, payload);
        }
    }

    /// Counts payload of an agent that was joined to nobody.
    pub(super) fn count_discarded(&mut self, place: PipePort, bytes: u64) {
        if let Some(pipe) = self.pipes.get_mut(place.pipe) {
            pipe.traffic.discarded += bytes;
        }
    }

    /// What is known of a mapping.
    pub(super) fn status(&self, id: &str) -> Option<PipeStatus> {
        Some(self.pipes.get(self.find(id)?)?.status())
    }

    /// The same of all mappings, by id.
    pub(super) fn status_of_all(&self) -> Vec<(String, PipeStatus)> {
        self.pipes.iter().map(|(_, pipe)| (pipe.id.clone(), pipe.status())).collect()
    }

    /// What all mappings have carried, those that have been removed included.
    pub(super) fn traffic(&self) -> Traffic {
        self.pipes.iter().map(|(_, pipe)| pipe.traffic).fold(self.removed.traffic, Traffic::plus)
    }

    /// How many mappings lack a port, and who is connected to all of them. Rejections of removed ones are included.
    pub(super) fn counts(&self) -> (usize, AgentCounts, UserCounts) {
        let rejected = self.removed.rejected;
        let first = (0, AgentCounts { rejected, ..AgentCounts::default() }, UserCounts::default());
        let statuses = self.pipes.iter().map(|(_, pipe)| pipe.status());
        statuses.fold(first, |(inactive, agents, users), status| {
            let is_inactive = status.bound != [true, true];
            let agents = status.agents.into_iter().fold(agents, AgentCounts::plus);
            (inactive + usize::from(is_inactive), agents, users.plus(status.users))
        })
    }
}
