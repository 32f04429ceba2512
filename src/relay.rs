//! The event loop of the daemon and everything it owns: every network socket, every open mapping.
//!
//! One thread. It never blocks, never touches the disk, and never waits for another thread: commands come in
//! through a channel ([`command`]) and are answered within the same turn. The turn itself, the sessions and closing are
//! those of [`crate::net::service`].
//!
//! The life of a connection, and the file that knows it:
//!
//! ```text
//! agent:  accepted -> Unauthenticated -> Agent: Free -> Joined     (unauthenticated, agents, private)
//!                     Unauthenticated -> Rejected                  (rejection)
//! user:   accepted -> User: Silent -> Waiting? -> Joined           (users)
//! API:    accepted -> Api                                          (api)
//! peer:   accepted -> Peer                                         (broker)
//! ```

pub mod command;

mod accept;
mod agents;
pub(crate) mod api;
pub(crate) mod broker;
mod census;
pub mod counters;
mod eviction;
mod fair_queue;
mod frames;
mod listeners;
mod mappings;
mod meter;
mod open;
mod pipe;
mod private;
mod prompts;
mod queue;
mod rate_limit;
mod rejection;
mod sessions;
mod settling;
mod state;
mod tunnel;
mod unauthenticated;
mod users;
mod wanted;

use crate::cidr::Cidr;
use crate::limits::{API_BUFFERS, DRAIN_TIMEOUT, HALF_CLOSED, HALF_CLOSED_CONTENDED};
use crate::logging::AccessLog;
use crate::net::buffers::Pool;
use crate::net::closing::Ending;
use crate::net::reactor::{Close, Key, Reactor, Socket, own_token};
use crate::net::server_tls::ServerTls;
use crate::net::service::{self, Service};
use crate::net::session::{Cause, Interruption};
use crate::network::Network;
use crate::throttle::{self, Throttle, Throttles};
use api::ApiPort;
pub use api::parser::ParserSocket;
use broker::Broker;
use command::{Command, Handle};
use counters::{Counters, Port};
use fair_queue::FairQueue;
use listeners::Listeners;
use log::info;
use mappings::Mappings;
use meter::Meter;
use pipe::{Pipe, PipePort};
use rate_limit::{RateLimit, Source};
use state::{Agent, Duty, Stage, State, User};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// What the loop is told once, at its start.
pub struct Setup {
    /// The address that all ports bind to; `None`: every IPv6 and IPv4 address.
    pub listen: Option<IpAddr>,
    pub api_port: u16,
    /// Where metrics are served to whoever comes; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// `None`: no broker.
    pub broker: Option<u16>,
    /// `None`: dev mode.
    pub tls: Option<ServerTls>,
    /// Who may call the API; `None`: everybody.
    pub controllers: Option<Vec<Cidr>>,
    /// Proxies whose users begin with a PROXY header.
    pub trust_proxy: Vec<Cidr>,
    /// TCP connections at most, those of the API not counted.
    pub connections: usize,
    /// These connections and the ports of mappings together: so many descriptors may be used for them.
    pub sockets: usize,
    /// The way to the HTTP parser.
    pub parser: ParserSocket,
    /// One line a session.
    pub access_log: Option<AccessLog>,
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
pub enum LoopEvent {
    /// It turns. Once a second.
    Turning,
    /// It was told to end, and is about to. Once.
    Stopping,
}

/// The daemon's event loop.
pub struct Relay {
    setup: Setup,
    reactor: Reactor<State>,
    listeners: Listeners,
    mappings: Mappings,
    api: ApiPort,
    broker: Broker,
    commands: Receiver<Command>,
    meter: Meter,
    counters: Counters,
    /// What the log has said of sessions that were ended for want of buffers.
    shortages: Throttle,
    /// The same of single ports and addresses.
    log: Throttles<Topic>,
    rate_limit: RateLimit,
    /// Connections that were rejected and are not closed yet.
    rejected: FairQueue,
    /// Agent ports for whose agents somebody has begun to wait in this turn.
    wanting: Vec<PipePort>,
    /// Nothing could be closed for a new connection: no other search before then.
    next_eviction: Option<Instant>,
    /// The daemon is ending, and must have ended by then.
    ending: Option<Instant>,
    /// The same for other threads.
    stopping: Arc<AtomicBool>,
    /// Where the supervisor's signs come from.
    tell: Box<dyn FnMut(LoopEvent) + Send>,
}

/// What the log tells no more often than it must: each port and address for itself (`throttle`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    /// The first agent was authorized at this port.
    FirstAgent(u16),
    /// The last agent at this port has gone.
    LastAgent(u16),
    /// A further agent was authorized at this port.
    Arrival(u16),
    /// A TLS handshake at this port has failed, and not by the peer's leaving.
    Handshake(u16),
    /// A peer has left in its TLS handshake at this port.
    Left(u16),
    /// An agent at this port has not been heard of.
    Absence(u16),
    /// There was no place for an agent at this port.
    NoPlace(u16),
    /// There was no agent for a user at this port.
    NoAgent(u16),
    /// A user may not use this port.
    NotAllowed(u16),
    /// A proxy did not say at this port where its user comes from.
    NoProxyHeader(u16),
    /// A user has too many sessions at this port.
    TooManyUsers(u16),
    /// Somebody was rejected.
    Rejection(Source),
    /// Somebody may not call the API, for this reason.
    Refusal(Network, &'static str),
}

/// The reactor's own tokens.
const WAKE: usize = 0;
const FIRST_LISTENER: usize = 1;

impl Relay {
    /// Binds the API port, and the broker's if that can be had.
    pub fn new(setup: Setup, buffers: Pool) -> Result<(Self, Handle), NewError> {
        let reactor = Reactor::new(buffers).map_err(NewError::Loop)?;
        let waker = mio::Waker::new(reactor.registry(), own_token(WAKE)).map_err(NewError::Loop)?;
        let (handle, commands) = Handle::new(Arc::new(waker));
        let mut relay = Self {
            setup,
            reactor,
            listeners: Listeners::default(),
            mappings: Mappings::default(),
            api: ApiPort::default(),
            broker: Broker::default(),
            commands,
            meter: Meter::default(),
            counters: Counters::default(),
            shortages: Throttle::default(),
            log: Throttles::default(),
            rate_limit: RateLimit::default(),
            rejected: FairQueue::default(),
            wanting: Vec::new(),
            next_eviction: None,
            ending: None,
            stopping: handle.stopping(),
            tell: Box::new(|_| {}),
        };
        relay.listen_for_controllers().map_err(NewError::ApiPort)?;
        relay.listen_for_peers();
        relay.listen_for_monitors();
        Ok((relay, handle))
    }

    /// Serves until told to stop, or until nobody is left who could tell. Whoever watches over the daemon gets
    /// its signs of life from here, from between two turns; `tell` must not block.
    pub fn run(&mut self, tell: impl FnMut(LoopEvent) + Send + 'static) -> io::Result<()> {
        self.tell = Box::new(tell);
        service::run(self)?;
        self.record_unfinished();
        // Agents that serve nobody are told last that the daemon is gone.
        for key in self.reactor.keys(|socket| socket.state.agent().is_some_and(state::Agent::is_free)) {
            self.close(key, Close::Now);
        }
        Ok(())
    }

    /// Commands of the control thread, all that are there.
    fn handle_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => command(self),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.stop(self.reactor.now, "the control thread has ended"),
            }
        }
    }

    /// When the session that a connection belongs to has been idle for as long as its mapping allows.
    fn idle_deadline(&self, state: &State) -> Option<Instant> {
        let moved = state.moved()?;
        Some(moved + self.mappings.get(state.pipe()?)?.options.idle_timeout?)
    }

    /// Closes the mappings' ports, dismisses who is not served, and lets sessions deliver what is in flight.
    ///
    /// The API goes on: it says that the daemon is stopping. So do the free agents: once closed they dial again, and
    /// each time that the port is closed they pause longer.
    fn stop(&mut self, since: Instant, why: &str) {
        if self.ending.is_some() {
            return;
        }
        info!("Stopping: {why}");
        self.stopping.store(true, Ordering::Relaxed);
        let now = self.reactor.now;
        self.ending = Some(since + DRAIN_TIMEOUT);
        self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
        self.listeners.close_all_but_the_api();
        (self.tell)(LoopEvent::Stopping);
        for key in self.reactor.keys(|socket| !matches!(socket.state, State::Api(_) | State::Backend(_))) {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Agent(agent) if agent.is_free() => {}
                State::Agent(_) | State::User(User { stage: Stage::Joined { .. }, .. }) => self.reactor.again(key),
                State::Rejected(_) => self.close_rejected(key),
                State::User(_) => self.close_user(key),
                _ => self.close(key, Close::Now),
            }
        }
    }
}

impl Service for Relay {
    type State = State;

    fn reactor(&self) -> &Reactor<State> {
        &self.reactor
    }

    fn reactor_mut(&mut self) -> &mut Reactor<State> {
        &mut self.reactor
    }

    /// Where there is room again, nobody is left waiting for the next event.
    fn pending(&mut self, own: &mut Vec<usize>) {
        self.send_wants();
        own.extend(self.listeners.take_pending().into_iter().map(|number| FIRST_LISTENER + number));
    }

    fn own_event(&mut self, number: usize) -> bool {
        match number.checked_sub(FIRST_LISTENER) {
            Some(listener) => self.accept(listener),
            None => {
                self.handle_commands();
                false
            }
        }
    }

    fn ready(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Unauthenticated(it) if it.is_deferred => {}
            State::Unauthenticated(_) => self.authenticate(key),
            State::Rejected(_) => self.watch_rejected(key),
            State::Agent(agent) => match &agent.duty {
                Duty::Free(_) => self.read_free(key),
                Duty::Joined(peer) => self.relay_joined(key, *peer),
                Duty::Calling(_) => self.hear_caller(key),
                Duty::Opening { .. } => self.hear_word(key),
                Duty::Released { .. } => self.read_released(key),
            },
            State::User(User { stage: Stage::Joined { agent, .. }, .. }) => self.relay(*agent, key),
            State::User(_) => self.seek_agent(key),
            State::Api(_) => self.serve_controller(key),
            State::Backend(_) => self.serve_backend(key),
            State::Peer(_) => self.serve_peer(key),
        }
    }

    fn deadline(&self, socket: &Socket<'_, State>) -> Option<Instant> {
        let absence = socket.state.agent().and_then(|agent| self.mappings.absence(agent.place));
        [socket.state.deadline(socket.link, absence), self.idle_deadline(socket.state)].into_iter().flatten().min()
    }

    fn overdue(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        if self.idle_deadline(socket.state).is_some_and(|deadline| deadline <= self.reactor.now) {
            return self.end(key, Cause::Interrupted(Interruption::Idle));
        }
        match socket.state {
            State::Unauthenticated(it) if it.is_deferred => self.has_its_turn(key),
            State::Unauthenticated(_) => {
                self.handshake_is_late(key, Port::Agent);
                self.authentication_failed(key);
            }
            State::Rejected(_) => self.close_rejected(key),
            State::Agent(agent) if agent.welcome.is_some() => self.has_been_welcomed(key),
            State::Agent(agent) if agent.is_free() && agent.unsettled.is_some() => self.settle(key),
            State::Agent(Agent { duty: Duty::Released { .. }, .. }) => self.end(key, Cause::Unconfirmed(key)),
            State::Agent(Agent { duty: Duty::Calling(_), .. }) => self.nobody_came(key),
            State::Agent(Agent { duty: Duty::Opening { .. }, .. }) => {
                self.end(key, Cause::interrupted("the other end of the tunnel does not answer"));
            }
            State::Agent(_) => self.absent(key),
            State::User(User { stage: Stage::Proxied { .. }, .. }) => self.refuse_proxy(key),
            State::User(User { pipe, stage: Stage::Waiting { .. }, .. }) => self.has_waited(key, *pipe),
            State::User(_) => {
                self.handshake_is_late(key, Port::User);
                self.close_user(key);
            }
            State::Api(_) => self.controller_is_late(key),
            State::Peer(_) => self.peer_is_due(key),
            State::Backend(_) => {}
        }
    }

    fn patience(&self, state: &State) -> Duration {
        let contended = state.pipe().and_then(|pipe| self.mappings.get(pipe)).is_some_and(Pipe::is_contended);
        if contended || self.ending.is_some() { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    /// Ports that could not be bound, descriptors that are back.
    fn tick(&mut self) {
        self.bind_missing();
        self.listen_for_monitors();
        self.listeners.resume();
        self.prompt_agents();
        self.meter.sample(self.reactor.now, self.mappings.traffic());
        self.rate_limit.forget(self.reactor.now);
        throttle::tell_held_back(self.reactor.now);
        self.setup.access_log.iter_mut().for_each(AccessLog::hand_over);
        // The waker goes with the last handle, and what it had to say is lost then.
        self.handle_commands();
        (self.tell)(LoopEvent::Turning);
    }

    /// Nobody is served any more, or the time for that is over.
    fn is_over(&mut self) -> bool {
        let is_done = |socket: Socket<'_, State>| match socket.state {
            State::Agent(agent) => !matches!(agent.duty, Duty::Joined(_)),
            State::Api(api) => api.is_idle(),
            State::Backend(_) => true,
            _ => false,
        };
        self.ending.is_some_and(|end| self.reactor.is_drained(end, is_done))
    }

    fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    fn ends(&mut self, key: Key, partner: Option<Key>, cause: &Cause) {
        if let Some(partner) = partner {
            self.note_leftovers(key, partner, cause);
        }
        self.record_end(key, partner, cause);
    }

    fn describe(&self, key: Key, peer: SocketAddr) -> String {
        let Some(socket) = self.reactor.get(key) else { return peer.to_string() };
        let mapping = socket.state.pipe().map(|pipe| self.mappings.name(pipe)).unwrap_or_default();
        match socket.state {
            State::Agent(_) => format!("agent {peer}, {mapping},"),
            State::User(_) => format!("user {peer}, {mapping},"),
            _ => peer.to_string(),
        }
    }

    fn release(&mut self, key: Key, ending: Ending, cause: &Cause) -> bool {
        self.release_agent(key, ending, cause)
    }

    fn left(&mut self, state: State) {
        self.listeners.resume();
        match state {
            State::Unauthenticated(it) => {
                if let Some(agents) = self.mappings.agents(it.place) {
                    agents.unauthenticated.leave(it.ticket);
                }
            }
            State::Rejected(rejected) => self.rejected.leave(rejected.ticket),
            State::Agent(agent) => {
                let Some(agents) = self.mappings.agents(agent.place) else { return };
                agents.count_out(agent.network, agent.framed.is_some());
                agent.duty.leave(agents);
            }
            State::User(user) => self.user_left(user),
            State::Api(api) => self.controller_left(*api),
            State::Backend(_) => self.api.backends -= 1,
            State::Peer(it) => self.broker.left(it),
        }
    }

    fn count(&mut self, key: Key, payload: u64) {
        let place = self.reactor.get_mut(key).and_then(|(socket, _)| socket.state.count(payload));
        place.into_iter().for_each(|place| self.mappings.count(place, payload));
    }

    fn shortages(&mut self) -> &mut Throttle {
        &mut self.shortages
    }
}
