//! The event loop of the daemon and everything it owns: every network socket, every open mapping.
//!
//! One thread. It never blocks, never touches the disk, and never waits for another thread: commands come in
//! through a channel ([`command`]) and are answered within the same turn.
//!
//! The life of a connection, and the file that knows it:
//!
//! ```text
//! agent:  accepted -> Deferred? -> Greeting -> Free -> Joined -> closing (strangers, agents, session)
//!                                  Greeting -> Rejected -> gone          (rejection)
//! user:   accepted -> Silent -> Waiting? -> Served -> HalfClosed? -> closing (users, session)
//! peer:   accepted -> Peer -> closing                                     (broker)
//! closing: Delivering -> Notifying -> Lingering -> gone                     (net::closing)
//! ```

pub mod command;

mod agents;
pub(crate) mod broker;
mod census;
mod closing;
mod eviction;
mod fair_queue;
mod front;
mod listeners;
mod meter;
mod offer;
mod open;
mod outsiders;
mod pipe;
mod prompts;
mod queue;
mod rate_limit;
mod refusal;
mod rejection;
pub(crate) mod request;
pub mod seal;
mod session;
mod settling;
mod state;
mod strangers;
mod users;

use crate::bucket::Bucket;
use crate::cidr::Cidr;
use crate::limits::{API_BUFFERS, DELIVERY, HALF_CLOSED, HALF_CLOSED_CONTENDED, LAST_WORDS};
use crate::net::buffers::Pool;
use crate::net::certificate::ServerTls;
use crate::net::reactor::{Key, Reactor, Socket, TICK};
use crate::net::shortage;
use crate::network::Network;
use crate::throttle::{self, Throttle, Throttles, and_more};
use broker::Broker;
use command::{Command, Handle, Traffic};
use fair_queue::FairQueue;
pub use front::Front;
use listeners::Listeners;
use log::{info, warn};
use meter::Meter;
use pipe::{Pipe, PipeKey};
use queue::Queue;
use rate_limit::{RateLimit, Source};
use slab::Slab;
use state::State;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// What the loop is told once, at its start.
pub struct Setup {
    /// The address that all ports bind to; `None`: every IPv6 and IPv4 address.
    pub listen: Option<IpAddr>,
    pub api_port: u16,
    /// `None`: no broker.
    pub broker: Option<u16>,
    /// `None`: dev mode.
    pub tls: Option<ServerTls>,
    /// Who may call the API; `None`: everybody.
    pub controllers: Option<Vec<Cidr>>,
    /// TCP connections at most, those of the API not counted.
    pub connections: usize,
    /// The way to the HTTP parser.
    pub front: Front,
}

/// Why there is no event loop; the causes are the system's.
#[derive(Debug)]
pub enum NewError {
    Loop(io::Error),
    /// The API port could not be bound.
    ApiPort(io::Error),
}

/// Sets relay buffers aside: one for each way through a session at least.
///
/// # Errors
/// There is not so much room.
pub fn reserve_buffers(relay: usize) -> io::Result<Pool> {
    Pool::new(relay.max(2), API_BUFFERS)
}

/// A sign of life of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It turns. Once a second.
    Alive,
    /// It was told to end, and is about to. Once.
    Ending,
}

/// The daemon's event loop.
pub struct Relay {
    setup: Setup,
    reactor: Reactor<State>,
    listeners: Listeners,
    pipes: Slab<Pipe>,
    ids: HashMap<String, PipeKey>,
    broker: Broker,
    commands: Receiver<Command>,
    past: Past,
    meter: Meter,
    /// What the log has said of sessions that were ended for want of buffers.
    shortages: Throttle,
    /// The same of single ports and addresses.
    log: Throttles<Topic>,
    /// Controllers' connections; first the one that has gone longest without a complete request.
    controllers: Queue,
    /// How many connections to the HTTP parser there are on their behalf.
    backends: usize,
    /// Connections to the API from addresses that may not call it.
    outsiders: FairQueue,
    outsider_rate: Bucket,
    rate_limit: RateLimit,
    /// Connections that were rejected and are not closed yet.
    rejected: FairQueue,
    /// Nothing could be closed for a new connection: no other search before then.
    next_eviction: Option<Instant>,
    /// The daemon is ending, and must have ended by then.
    ending: Option<Instant>,
    /// The same for other threads.
    stopping: Arc<AtomicBool>,
}

/// What is remembered of mappings that have been removed.
#[derive(Clone, Copy, Default)]
struct Past {
    traffic: Traffic,
    /// Wrong passcodes.
    rejected: u64,
}

/// What the log tells no more often than it must: each port and address for itself (`throttle`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    /// An agent was authorized at this port.
    Arrival(u16),
    /// An agent at this port has not been heard of.
    Absence(u16),
    /// There was no place for an agent at this port.
    NoPlace(u16),
    /// There was no agent for a user at this port.
    NoAgent(u16),
    /// Somebody was rejected.
    Rejection(Source),
    /// Somebody may not call the API, for this reason.
    Refusal(Network, &'static str),
}

/// The reactor's own tokens.
const WAKE: usize = 0;
const FIRST_LISTENER: usize = 1;
/// While the daemon ends, it looks this often whether everything has been delivered.
const LOOK: Duration = Duration::from_millis(20);

impl Relay {
    /// Binds the API port, and the broker's if that can be had.
    pub fn new(setup: Setup, buffers: Pool) -> Result<(Self, Handle), NewError> {
        let reactor = Reactor::new(buffers).map_err(NewError::Loop)?;
        let waker = mio::Waker::new(reactor.registry(), Reactor::<State>::own_token(WAKE)).map_err(NewError::Loop)?;
        let (handle, commands) = Handle::new(Arc::new(waker));
        let mut relay = Self {
            setup,
            reactor,
            listeners: Listeners::default(),
            pipes: Slab::new(),
            ids: HashMap::new(),
            broker: Broker::default(),
            commands,
            past: Past::default(),
            meter: Meter::default(),
            shortages: Throttle::default(),
            log: Throttles::default(),
            controllers: Queue::default(),
            backends: 0,
            outsiders: FairQueue::default(),
            outsider_rate: Bucket::default(),
            rate_limit: RateLimit::default(),
            rejected: FairQueue::default(),
            next_eviction: None,
            ending: None,
            stopping: handle.stopping(),
        };
        relay.listen_for_controllers().map_err(NewError::ApiPort)?;
        relay.listen_for_peers();
        Ok((relay, handle))
    }

    /// Serves until told to stop, or until nobody is left who could tell. Whoever watches over the daemon gets
    /// its signs of life from here, from between two turns; `tell` must not block.
    pub fn run(&mut self, mut tell: impl FnMut(Sign)) -> io::Result<()> {
        let mut own = Vec::new();
        let mut tick = Instant::now() + TICK;
        let mut told = false;
        loop {
            // Before the sleep: where there is room again, nobody is left waiting for the next event.
            own.extend(self.take_knocks().into_iter().map(|number| FIRST_LISTENER + number));
            self.reactor.wait(&mut own)?;
            for token in std::mem::take(&mut own) {
                match token {
                    WAKE => self.obey(),
                    listener => {
                        if self.accept(listener - FIRST_LISTENER) {
                            own.push(listener);
                        }
                    }
                }
            }
            for _ in 0..self.reactor.queued() {
                let Some(key) = self.reactor.next_ready() else { break };
                self.work(key);
            }
            let now = self.reactor.now;
            if self.reactor.scan_is_due() | (now >= tick) {
                self.enforce_deadlines();
            }
            if now >= tick {
                tick = now + TICK;
                self.housekeeping();
                // The waker goes with the last handle, and what it had to say is lost then.
                self.obey();
                tell(Sign::Alive);
            }
            if self.ending.is_some() && !std::mem::replace(&mut told, true) {
                tell(Sign::Ending);
            }
            if self.has_ended() {
                self.dismiss_free_agents();
                return Ok(());
            }
        }
    }

    /// Gives one connection its turn.
    fn work(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Deferred { .. } => {}
            State::Rejected(_) => self.watch_rejected(key),
            State::Greeting { .. } => self.greet(key),
            State::Free { .. } => self.attend(key),
            State::Joined { peer, .. } => self.relay(key, peer),
            State::Silent { .. } | State::Waiting { .. } => self.seek_agent(key),
            State::Served { agent, .. } | State::HalfClosed { agent, .. } => self.relay(agent, key),
            State::Closing { .. } => self.close_further(key),
            State::Api(_) => self.serve_controller(key),
            State::Backend(_) => self.serve_backend(key),
            State::Peer(_) => self.serve_peer(key),
        }
    }

    /// Looks through all connections for those that have outstayed their state.
    fn enforce_deadlines(&mut self) {
        let now = self.reactor.now;
        let mut overdue = Vec::new();
        let mut next = now + TICK;
        for (key, socket) in self.reactor.iter() {
            match self.deadline(socket) {
                Some(deadline) if deadline <= now => overdue.push(key),
                Some(deadline) => next = next.min(deadline),
                None => {}
            }
        }
        self.reactor.wake_by(next);
        for key in overdue {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                _ if self.delivery_deadline(socket).is_some_and(|deadline| deadline <= now) => {
                    self.abort(key, &"it has taken nothing of what was left for it");
                }
                State::Deferred { .. } => self.has_its_turn(key),
                State::Greeting { .. } => self.greeting_is_late(key),
                State::Rejected(_) => self.close_rejected(key),
                State::Free { .. } | State::Joined { .. } if self.is_being_welcomed(key) => self.has_been_welcomed(key),
                State::Free { .. } if self.is_unsettled(key) => self.settle(key),
                State::Free { .. } | State::Joined { .. } => self.absent(key),
                State::Waiting { pipe, .. } => self.has_waited(key, pipe),
                State::Silent { .. } => self.dismiss_user(key),
                State::HalfClosed { agent, .. } => self.end_half_closed(key, agent),
                State::Api(_) => self.controller_is_late(key),
                State::Peer(_) => self.peer_is_due(key),
                _ => self.close_at_last(key),
            }
        }
    }

    fn deadline(&self, socket: &Socket<State>) -> Option<Instant> {
        let Socket { link, state, .. } = socket;
        let absence = state.agent().and_then(|agent| {
            let pipe = self.pipes.get(agent.place.pipe)?;
            pipe.absence(agent.place.side)
        });
        let patience = match state {
            State::HalfClosed { pipe, .. } => self.patience(*pipe),
            _ => HALF_CLOSED,
        };
        let own = state.deadline(link, absence, patience);
        [own, self.delivery_deadline(socket)].into_iter().flatten().min()
    }

    /// Until when the end of a session is kept for a reader that takes nothing, while who sent it is gone already.
    fn delivery_deadline(&self, Socket { link, state, .. }: &Socket<State>) -> Option<Instant> {
        let (State::Joined { peer: sender, .. }
        | State::Served { agent: sender, .. }
        | State::HalfClosed { agent: sender, .. }) = state
        else {
            return None;
        };
        let sender = &self.reactor.get(*sender)?.link;
        let is_gone = sender.has_hung_up() || sender.has_ended();
        (is_gone && !link.is_flushed()).then(|| link.told + DELIVERY)
    }

    /// How long the agent of a half-closed session may be silent.
    fn patience(&self, pipe: PipeKey) -> Duration {
        let contended = self.pipes.get(pipe).is_some_and(Pipe::has_waiting_users);
        if contended || self.ending.is_some() { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    /// Once a second: ports that could not be bound, buffers that are not to be had, descriptors that are back.
    fn housekeeping(&mut self) {
        self.bind_missing();
        self.listeners.resume();
        self.end_stalled();
        let now = self.reactor.now;
        self.prompt_agents();
        self.reactor.links_mut().for_each(|link| link.review_patience(now));
        self.meter.sample(now, self.traffic());
        self.rate_limit.forget(now);
        throttle::tell_held_back(now);
    }

    /// All relay buffers are in use and somebody waits: those go that hold some without progress.
    fn end_stalled(&mut self) {
        for (key, peer) in shortage::to_end(&self.reactor) {
            if let Some(unsaid) = self.shortages.may_say(self.reactor.now) {
                let more = and_more(unsaid);
                warn!("All relay buffers are in use; the connection of {peer}, which is stuck, is ended{more}");
            }
            self.abort(key, &"all relay buffers are in use, and it is stuck");
        }
    }

    /// Commands of the control thread, all that are there.
    fn obey(&mut self) {
        loop {
            match self.commands.try_recv() {
                // A reply that nobody waits for is no failure of ours.
                Ok(Command::Open { mapping, reply }) => drop(reply.send(self.open(mapping))),
                Ok(Command::Restore { mapping, reply }) => drop(reply.send(self.restore(mapping))),
                Ok(Command::Close { id, reply }) => {
                    self.close_pipe(&id);
                    let _ = reply.send(());
                }
                Ok(Command::Status { id, reply }) => drop(reply.send(self.status(&id))),
                Ok(Command::Reload { tls }) => self.setup.tls = tls,
                Ok(Command::Admit { controllers, reply }) => {
                    self.setup.controllers = controllers;
                    let _ = reply.send(());
                }
                Ok(Command::StatusOfAll { reply }) => drop(reply.send(self.status_of_all())),
                Ok(Command::Totals { reply }) => drop(reply.send(self.totals())),
                Ok(Command::Stop { since }) => self.stop(since),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.stop(self.reactor.now),
            }
        }
    }

    /// Closes the mappings' ports, dismisses who is not served, and lets sessions deliver what is in flight.
    ///
    /// The API goes on: it says that the daemon is stopping. So do the free agents: once closed they dial again, and
    /// each time that the port is closed they pause longer.
    fn stop(&mut self, since: Instant) {
        if self.ending.is_some() {
            return;
        }
        info!("Stopping");
        self.stopping.store(true, Ordering::Relaxed);
        let now = self.reactor.now;
        self.ending = Some(since + LAST_WORDS);
        self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
        self.listeners.close_all_but_the_api();
        let keys: Vec<Key> = self.reactor.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Joined { .. } | State::Served { .. } | State::HalfClosed { .. } => self.reactor.again(key),
                State::Free { .. } | State::Api(_) | State::Backend(_) | State::Closing { .. } => {}
                State::Deferred { .. } | State::Greeting { .. } => self.turn_away(key),
                State::Rejected(_) => self.close_rejected(key),
                State::Silent { .. } | State::Waiting { .. } => self.dismiss_user(key),
                State::Peer(_) => self.dismiss_peer(key),
            }
        }
    }

    /// Nobody is served any more, or the time for that is over.
    fn has_ended(&mut self) -> bool {
        let Some(end) = self.ending else { return false };
        let now = self.reactor.now;
        let is_done = |Socket { link, state, .. }: &Socket<State>| match state {
            State::Free { .. } | State::Backend(_) => true,
            State::Api(api) => api.is_idle() || api.has_delivered(link),
            State::Closing { closing, .. } => closing.has_delivered(link),
            _ => false,
        };
        let ended = now >= end || self.reactor.iter().all(|(_, socket)| is_done(socket));
        if !ended {
            // Acknowledgements raise no event.
            self.reactor.wake_by(end.min(now + LOOK));
        }
        ended
    }

    /// The last act of the daemon: agents that serve nobody are told that it is gone.
    fn dismiss_free_agents(&mut self) {
        let free = |socket: &Socket<State>| matches!(socket.state, State::Free { .. });
        let keys: Vec<Key> = self.reactor.iter().filter(|(_, socket)| free(socket)).map(|(key, _)| key).collect();
        for key in keys {
            self.leave_pool(key);
            self.discard(key);
        }
    }
}
