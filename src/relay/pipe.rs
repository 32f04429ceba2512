//! An open mapping as the loop sees it: who is connected to which port, in what order. No I/O.

use super::census::Census;
use super::command::{AgentCounts, PipeStatus, Traffic, UserCounts};
use super::fair_queue::FairQueue;
use super::queue::Queue;
use super::wanted::Wanted;
use crate::clock;
use crate::limits::{UNAUTHENTICATED, UNAUTHENTICATED_OF_A_FLEET};
use crate::mapping::{AgentPort, Kind, Mapping, Options};
use crate::net::reactor::Key;
use crate::network::Network;
use std::time::{Duration, Instant, SystemTime};

/// Names an open mapping until it is closed.
pub(super) type PipeKey = usize;

/// One of a pipe's ports: 0 is port1, 1 is port2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PipePort {
    pub(super) pipe: PipeKey,
    pub(super) side: usize,
}

impl PipePort {
    /// The pipe's other port.
    pub(super) fn opposite(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// One open mapping with ports.
pub(super) struct Pipe {
    pub(super) id: String,
    pub(super) ends: Ends,
    pub(super) options: Options,
    pub(super) traffic: Traffic,
    since: SystemTime,
}

/// Who may connect.
pub(super) enum Ends {
    Public { agents: Agents, users: Users },
    Private([Agents; 2]),
}

/// A port of the pipe, and its listener once it could be bound.
pub(super) struct PortBinding {
    pub(super) port: u16,
    pub(super) listener: Option<usize>,
}

/// An agent port.
pub(super) struct Agents {
    pub(super) binding: PortBinding,
    pub(super) terms: AgentPort,
    /// No passcode yet.
    pub(super) unauthenticated: FairQueue,
    /// Authorized and not joined to anybody.
    pub(super) free: Queue,
    /// Those that have asked to be joined to an agent of the other side, while none is free.
    pub(super) calling: Queue,
    /// Joined to a user, or to an agent of the other side.
    pub(super) joined: usize,
    /// Authorized, free or not.
    authorized: usize,
    /// Of those, how many speak in frames.
    framed: usize,
    /// Where those come from.
    networks: Census,
    pub(super) rejected: u64,
    /// Connections that its agents have been asked for.
    pub(super) wanted: Wanted,
    /// Until then an agent that comes may still send the end of an answer that nobody waits for any more.
    pub(super) leftovers: Option<Instant>,
}

/// The user port of a public pipe.
pub(super) struct Users {
    pub(super) binding: PortBinding,
    /// No byte yet, or no PROXY header of the proxy in front.
    pub(super) silent: FairQueue,
    /// Have sent something, and wait for a free agent.
    pub(super) waiting: FairQueue,
    pub(super) joined: usize,
    /// Where those come from that are joined.
    networks: Census,
}

impl Pipe {
    /// The loop's view of `mapping`; `None` for a direct entry, which has no ports.
    pub(super) fn new(mapping: Mapping) -> Option<Self> {
        let ends = match mapping.kind {
            Kind::Public { agents, users } => Ends::Public { agents: Agents::new(agents), users: Users::new(users) },
            Kind::Private { sides } => Ends::Private(sides.map(Agents::new)),
            Kind::Direct { .. } => return None,
        };
        let (id, options) = (mapping.id, mapping.options);
        Some(Self { id, ends, options, traffic: Traffic::default(), since: clock::now() })
    }

    pub(super) fn agents(&mut self, side: usize) -> Option<&mut Agents> {
        match (&mut self.ends, side) {
            (Ends::Public { agents, .. }, 0) => Some(agents),
            (Ends::Private(sides), _) => sides.get_mut(side),
            _ => None,
        }
    }

    pub(super) fn users(&mut self) -> Option<&mut Users> {
        match &mut self.ends {
            Ends::Public { users, .. } => Some(users),
            Ends::Private(_) => None,
        }
    }

    /// port1 and port2.
    pub(super) fn bindings(&mut self) -> [&mut PortBinding; 2] {
        match &mut self.ends {
            Ends::Public { agents, users } => [&mut agents.binding, &mut users.binding],
            Ends::Private([one, two]) => [&mut one.binding, &mut two.binding],
        }
    }

    /// As the log has it.
    pub(super) fn name(&self) -> String {
        format!("Mapping {}", self.options.label(&self.id))
    }

    /// port1 or port2.
    pub(super) fn port(&self, side: usize) -> u16 {
        match &self.ends {
            Ends::Public { agents, users } => [agents.binding.port, users.binding.port][side.min(1)],
            Ends::Private(sides) => sides[side.min(1)].binding.port,
        }
    }

    /// How long an agent of this side may be silent; `None`: for ever.
    pub(super) fn absence(&self, side: usize) -> Option<Duration> {
        match (&self.ends, side) {
            (Ends::Public { agents, .. }, _) => agents.terms.absence,
            (Ends::Private(sides), side) => sides.get(side).and_then(|agents| agents.terms.absence),
        }
    }

    /// Somebody waits for a connection of those that there are; where more can be asked for, it waits for one of these.
    pub(super) fn is_contended(&self) -> bool {
        let more_may_come = |agents: &Agents| agents.has_framed() && agents.has_place();
        match &self.ends {
            Ends::Public { agents, users } => !users.waiting.is_empty() && !more_may_come(agents),
            Ends::Private([one, two]) => [(one, two), (two, one)]
                .iter()
                .any(|(calls, serves)| !calls.calling.is_empty() && !more_may_come(serves)),
        }
    }

    /// Users are joined when they say something, and not before.
    pub(super) fn users_speak_first(&self) -> bool {
        let is_told = matches!(&self.ends, Ends::Public { agents, .. } if agents.has_framed());
        !is_told && self.options.proxy_protocol.is_none()
    }

    /// What there is to say of it.
    pub(super) fn status(&self) -> PipeStatus {
        let (bindings, agents, users) = match &self.ends {
            Ends::Public { agents, users } => {
                ([&agents.binding, &users.binding], [agents.counts(), AgentCounts::default()], users.counts())
            }
            Ends::Private([one, two]) => {
                ([&one.binding, &two.binding], [one.counts(), two.counts()], UserCounts::default())
            }
        };
        let bound = bindings.map(|binding| binding.listener.is_some());
        PipeStatus { bound, agents, users, traffic: self.traffic, since: Some(self.since) }
    }

    /// Counts payload that went from `side` to the other.
    pub(super) fn count(&mut self, side: usize, bytes: u64) {
        let counter = if side == 0 { &mut self.traffic.port1_rx } else { &mut self.traffic.port2_rx };
        *counter += bytes;
    }
}

impl Agents {
    fn new(terms: AgentPort) -> Self {
        Self {
            binding: PortBinding { port: terms.port, listener: None },
            terms,
            unauthenticated: FairQueue::default(),
            free: Queue::default(),
            calling: Queue::default(),
            joined: 0,
            authorized: 0,
            framed: 0,
            networks: Census::default(),
            rejected: 0,
            wanted: Wanted::default(),
            leftovers: None,
        }
    }

    fn counts(&self) -> AgentCounts {
        AgentCounts {
            authorized: self.authorized,
            free: self.free.len(),
            joined: self.joined,
            unauthenticated: self.unauthenticated.len(),
            rejected: self.rejected,
        }
    }

    /// One more is authorized.
    pub(super) fn count_in(&mut self, network: Network, is_framed: bool) {
        self.authorized += 1;
        self.framed += usize::from(is_framed);
        self.networks.add(network);
    }

    /// An authorized one is gone.
    pub(super) fn count_out(&mut self, network: Network, is_framed: bool) {
        self.authorized -= 1;
        self.framed -= usize::from(is_framed);
        self.networks.remove(network);
    }

    /// There are agents that are told of a user as soon as it has connected.
    pub(super) fn has_framed(&self) -> bool {
        self.framed > 0
    }

    /// There are agents of version 1.
    pub(super) fn has_plain(&self) -> bool {
        self.framed < self.authorized
    }

    /// Who must leave before one more unauthenticated connection may come.
    pub(super) fn surplus(&self) -> Option<Key> {
        let has_agents = |network| self.networks.of(network) > 0;
        self.unauthenticated
            .surplus_by(UNAUTHENTICATED, |network| if has_agents(network) { UNAUTHENTICATED_OF_A_FLEET } else { 1 })
    }

    /// How many connections its agents are to be asked for, if so many are needed.
    pub(super) fn want(&mut self, needed: usize, now: Instant) -> u16 {
        let places = usize::from(self.terms.max_connections).saturating_sub(self.authorized);
        self.wanted.more(needed, places, now)
    }

    /// How many are authorized, free or not.
    pub(super) fn authorized(&self) -> usize {
        self.authorized
    }

    /// Whether one more may be authorized.
    pub(super) fn has_place(&self) -> bool {
        self.authorized < usize::from(self.terms.max_connections)
    }
}

impl Users {
    fn new(port: u16) -> Self {
        Self {
            binding: PortBinding { port, listener: None },
            silent: FairQueue::default(),
            waiting: FairQueue::default(),
            joined: 0,
            networks: Census::default(),
        }
    }

    fn counts(&self) -> UserCounts {
        UserCounts { joined: self.joined, waiting: self.waiting.len(), silent: self.silent.len() }
    }

    /// One more has an agent.
    pub(super) fn count_in(&mut self, network: Network) {
        self.joined += 1;
        self.networks.add(network);
    }

    /// One that had an agent is gone.
    pub(super) fn count_out(&mut self, network: Network) {
        self.joined -= 1;
        self.networks.remove(network);
    }

    /// How many from there have an agent.
    pub(super) fn joined_from(&self, network: Network) -> usize {
        self.networks.of(network)
    }

    /// Whose turn it is when an agent becomes free.
    pub(super) fn next_waiting(&self) -> Option<Key> {
        self.waiting.first()
    }
}
