//! The event loop of the daemon and everything it owns: every network socket, every open mapping.
//!
//! One thread. It never blocks, never touches the disk, and never waits for another thread: commands come in
//! through a channel ([`command`]) and are answered within the same turn.
//!
//! The life of a connection, and the file that knows it:
//!
//! ```text
//! agent:  accepted -> Braked? -> Greeting -> Free -> Joined -> closing   (strangers, agents, session)
//! user:   accepted -> Silent -> Waiting? -> Served -> HalfClosed? -> closing (users, session)
//! peer:   accepted -> Peer -> closing                                     (broker)
//! closing: Delivering -> Parting -> Lingering -> gone                       (net::closing)
//! ```

pub mod command;

mod agents;
mod brake;
mod broker;
mod closing;
mod crowd;
mod front;
mod listeners;
mod meter;
mod open;
mod pipe;
mod queue;
mod refusal;
pub(crate) mod request;
pub mod seal;
mod session;
mod state;
mod strangers;
mod users;

use crate::limits::{API_BUFFERS, DELIVERY, HALF_CLOSED, HALF_CLOSED_CONTENDED, LAST_WORDS};
use crate::net::certificate::ServerTls;
use crate::net::reactor::{Key, Reactor, Socket, TICK};
use crate::net::shortage;
use crate::throttle::{Throttle, and_more};
use broker::Broker;
use command::{Command, Handle, Traffic};
pub use front::Front;
use listeners::Listeners;
use log::{info, warn};
use meter::Meter;
use pipe::{Pipe, PipeKey};
use queue::Queue;
use slab::Slab;
use state::State;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
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
    /// TCP connections at most, those of the API not counted.
    pub connections: usize,
    /// Relay buffers to preallocate.
    pub buffers: usize,
    /// The way to the HTTP parser.
    pub front: Front,
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
    /// Controllers' connections; first the one that has gone longest without a complete request.
    controllers: Queue,
    /// How many connections to the HTTP parser there are on their behalf.
    backends: usize,
    /// The daemon is ending, and must have ended by then.
    ending: Option<Instant>,
}

/// What is remembered of mappings that have been removed.
#[derive(Clone, Copy, Default)]
struct Past {
    traffic: Traffic,
    /// Wrong passcodes.
    rejected: u64,
}

/// The reactor's own tokens.
const WAKE: usize = 0;
const FIRST_LISTENER: usize = 1;

impl Relay {
    /// Binds the API port, and the broker's if that can be had. Errors are the system's.
    pub fn new(setup: Setup) -> io::Result<(Self, Handle)> {
        let reactor = Reactor::new(setup.buffers, API_BUFFERS)?;
        let waker = mio::Waker::new(reactor.registry(), Reactor::<State>::own_token(WAKE))?;
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
            controllers: Queue::default(),
            backends: 0,
            ending: None,
        };
        relay.listen_for_controllers()?;
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
                return Ok(());
            }
        }
    }

    /// Gives one connection its turn.
    fn work(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Braked { .. } => {}
            State::Greeting { .. } => self.greet(key),
            State::Free { .. } => self.attend(key),
            State::Joined { peer, .. } => self.relay(key, peer),
            State::Silent { .. } | State::Waiting { .. } => self.seek_agent(key),
            State::Served { agent, .. } | State::HalfClosed { agent, .. } => self.relay(agent, key),
            State::Closing(_) => self.close_further(key),
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
                _ if self.delivery_deadline(socket).is_some_and(|deadline| deadline <= now) => self.abort(key),
                State::Braked { .. } => self.release_brake(key),
                State::Greeting { .. } => self.turn_away(key),
                State::Free { .. } | State::Joined { .. } if self.is_being_welcomed(key) => self.has_been_welcomed(key),
                State::Free { .. } | State::Joined { .. } => self.absent(key),
                State::Silent { .. } | State::Waiting { .. } => self.dismiss_user(key),
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
        let is_gone = self.reactor.get(*sender)?.link.has_hung_up();
        (is_gone && !link.is_flushed()).then(|| link.told + DELIVERY)
    }

    /// How long the agent of a half-closed session may be silent.
    fn patience(&self, pipe: PipeKey) -> Duration {
        let contended = self.pipes.get(pipe).is_some_and(Pipe::has_waiting_users);
        if contended { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    /// Once a second: ports that could not be bound, buffers that are not to be had, descriptors that are back.
    fn housekeeping(&mut self) {
        self.bind_missing();
        self.listeners.resume();
        self.end_stalled();
        let now = self.reactor.now;
        self.reactor.links_mut().for_each(|link| link.review_patience(now));
        self.meter.sample(now, self.traffic());
    }

    /// All relay buffers are in use and somebody waits: those go that hold some without progress.
    fn end_stalled(&mut self) {
        for (key, peer) in shortage::to_end(&self.reactor) {
            if let Some(unsaid) = self.shortages.may_say(self.reactor.now) {
                let more = and_more(unsaid);
                warn!("All relay buffers are in use; the connection of {peer}, which is stuck, is ended{more}");
            }
            self.abort(key);
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
                Ok(Command::StatusOfAll { reply }) => drop(reply.send(self.status_of_all())),
                Ok(Command::Totals { reply }) => drop(reply.send(self.totals())),
                Ok(Command::Stop) => self.stop(),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.stop(),
            }
        }
    }

    /// Closes the ports, dismisses who is not served, and lets sessions deliver what is in flight.
    fn stop(&mut self) {
        if self.ending.is_some() {
            return;
        }
        info!("Stopping");
        let end = self.reactor.now + LAST_WORDS;
        self.ending = Some(end);
        self.reactor.wake_by(end);
        self.listeners.close_all();
        let keys: Vec<Key> = self.reactor.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Joined { .. } | State::Served { .. } | State::HalfClosed { .. } => self.reactor.again(key),
                State::Free { .. } => self.part_with_agent(key),
                State::Api(_) | State::Backend(_) => {}
                State::Closing(_) => {}
                State::Braked { .. } | State::Greeting { .. } => self.turn_away(key),
                State::Silent { .. } | State::Waiting { .. } => self.dismiss_user(key),
                State::Peer(_) => self.dismiss_peer(key),
            }
        }
    }

    fn has_ended(&self) -> bool {
        let idle_api = |state: &State| matches!(state, State::Api(api) if api.is_idle());
        self.ending.is_some_and(|end| {
            self.reactor.now >= end
                || self.reactor.iter().all(|(_, s)| matches!(s.state, State::Backend(_)) || idle_api(&s.state))
        })
    }
}
