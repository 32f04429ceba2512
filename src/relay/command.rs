//! How the control thread talks to the event loop: a channel in, a waker, and a reply channel a question.
//!
//! The loop answers within one turn; it never waits for the control thread.

use super::Relay;
use super::api::refusal::Status;
use super::counters::{Counters, Counts};
use crate::cidr::Cidr;
use crate::mapping::Mapping;
use crate::net::expiry::Expiry;
use crate::net::server_tls::ServerTls;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// What the loop does for another thread, between two turns.
pub(super) type Command = Box<dyn FnOnce(&mut Relay) + Send>;

/// A port that could not be bound.
#[derive(Debug)]
pub struct OpenError {
    pub port: u16,
    pub cause: io::Error,
}

/// What the loop knows of one open mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipeStatus {
    /// Whether port1 and port2 are bound.
    pub bound: [bool; 2],
    /// The agents of port1 and, where it is an agents' port, of port2.
    pub agents: [AgentCounts; 2],
    /// The users of a public pipe.
    pub users: UserCounts,
    pub traffic: Traffic,
    /// When the daemon opened it; `None` if it is not open.
    pub since: Option<SystemTime>,
}

/// Agents at one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// Authorized, with a partner or without.
    pub authorized: usize,
    /// Without a partner, and ready for one.
    pub free: usize,
    /// Joined to a user or a peer.
    pub joined: usize,
    /// Connected, without a passcode yet.
    pub unauthenticated: usize,
    /// Wrong passcodes since the mapping was opened.
    pub rejected: u64,
}

impl AgentCounts {
    /// Both taken together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            authorized: self.authorized + other.authorized,
            free: self.free + other.free,
            joined: self.joined + other.joined,
            unauthenticated: self.unauthenticated + other.unauthenticated,
            rejected: self.rejected + other.rejected,
        }
    }
}

/// Users of a public pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    pub joined: usize,
    /// For a free agent.
    pub waiting: usize,
    /// Connected, without a byte yet.
    pub silent: usize,
}

impl UserCounts {
    /// All who are connected.
    pub fn all(&self) -> usize {
        self.joined + self.waiting + self.silent
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            joined: self.joined + other.joined,
            waiting: self.waiting + other.waiting,
            silent: self.silent + other.silent,
        }
    }
}

/// Bytes of payload since the mapping was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Came in at port1, for port2.
    pub port1_rx: u64,
    /// Came in at port2, for port1.
    pub port2_rx: u64,
    /// From agents without a partner.
    pub discarded: u64,
    /// How many agents that was. No bytes.
    pub unsettled: u64,
}

impl Traffic {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            port1_rx: self.port1_rx + other.port1_rx,
            port2_rx: self.port2_rx + other.port2_rx,
            discarded: self.discarded + other.discarded,
            unsettled: self.unsettled + other.unsettled,
        }
    }
}

/// What the loop knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections of agents, users and those who have not authenticated.
    pub connections: usize,
    /// How many of these there may be.
    pub most_connections: usize,
    /// Connections of Controllers.
    pub controllers: usize,
    /// Relay buffers in use.
    pub buffers: usize,
    /// How many relay buffers there are.
    pub most_buffers: usize,
    /// How often no more connections could be accepted.
    pub pauses: u64,
    /// Open mappings of which a port is not bound.
    pub inactive: usize,
    /// At all ports. Rejections are counted since the start, removed mappings included.
    pub agents: AgentCounts,
    pub users: UserCounts,
    /// Rejected connections that are still to be closed.
    pub rejecting: usize,
    /// Connections at the broker.
    pub peers: usize,
    /// Connections that only get what is left for them.
    pub closing: usize,
    /// Of all mappings since the start, those that have been removed included.
    pub traffic: Traffic,
    /// Bytes a second that come in at port1 and at port2, on the average of the last seconds.
    pub rates: [u64; 2],
    /// Since the start.
    pub counters: Counters,
    /// API requests that went no further than the loop, by the status of their answer.
    pub api_refusals: Counts<Status>,
    /// Until when the certificate is valid; `None` in dev mode.
    pub expiry: Option<Expiry>,
}

/// The loop is gone; the daemon is ending.
#[derive(Debug)]
pub struct Gone;

/// What the control thread asks of the loop. Every call waits for the answer, which comes within one turn of it.
pub trait EventLoop: Send {
    /// Opens `mapping`, or says which port could not be bound.
    fn open(&self, mapping: &Mapping) -> Result<Result<(), OpenError>, Gone>;

    /// Opens `mapping` now or later; answers with the ports that could not be bound yet.
    fn restore(&self, mapping: &Mapping) -> Result<Vec<OpenError>, Gone>;

    /// Closes the mapping; its connections are gone when this returns.
    fn close(&self, id: &str) -> Result<(), Gone>;

    /// `None` if no such mapping is open.
    fn status(&self, id: &str) -> Result<Option<PipeStatus>, Gone>;

    /// The status of every open mapping, by id.
    fn status_of_all(&self) -> Result<Vec<(String, PipeStatus)>, Gone>;

    /// What the loop knows of itself.
    fn totals(&self) -> Result<Totals, Gone>;

    /// Closes listeners, delivers what is in flight, ends. The time for that counts from this call.
    /// `why` is for the log.
    fn stop(&self, why: String) -> Result<(), Gone>;

    /// Whether it turns: whether it answers within `limit`.
    fn turns_within(&self, limit: Duration) -> bool;

    /// The loop is about to end.
    fn is_stopping(&self) -> bool;
}

/// Other threads' end.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    stopping: Arc<AtomicBool>,
}

impl Handle {
    pub(super) fn new(waker: Arc<mio::Waker>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = channel();
        (Self { commands, waker, stopping: Arc::default() }, inbox)
    }

    /// New connections get this certificate from now on; the others keep theirs. `None` in dev mode.
    pub fn reload(&self, tls: Option<ServerTls>) -> Result<(), Gone> {
        self.ask(|relay| relay.setup.tls = tls)
    }

    /// Only these addresses may call the API from now on; `None`: everybody may.
    pub fn admit(&self, controllers: Option<Vec<Cidr>>) -> Result<(), Gone> {
        self.ask(|relay| relay.setup.controllers = controllers)
    }

    /// User connections from these addresses begin with a PROXY header from now on, and no others.
    pub fn trust_proxy(&self, proxies: Vec<Cidr>) -> Result<(), Gone> {
        self.ask(|relay| relay.setup.trust_proxy = proxies)
    }

    /// Where the loop says that it is about to end, while it lets sessions deliver what is in flight.
    pub(super) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Relay) -> T + Send + 'static) -> Result<T, Gone> {
        // Of one place: a channel without bound takes thirty at once.
        let (reply, answer) = sync_channel(1);
        // A reply that nobody waits for is no failure of the loop.
        let command: Command = Box::new(move |relay| drop(reply.send(work(relay))));
        self.commands.send(command).map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)?;
        answer.recv().map_err(|_| Gone)
    }
}

impl EventLoop for Handle {
    fn open(&self, mapping: &Mapping) -> Result<Result<(), OpenError>, Gone> {
        let mapping = mapping.clone();
        self.ask(|relay| relay.open(mapping))
    }

    fn restore(&self, mapping: &Mapping) -> Result<Vec<OpenError>, Gone> {
        let mapping = mapping.clone();
        self.ask(|relay| relay.restore(mapping))
    }

    fn close(&self, id: &str) -> Result<(), Gone> {
        let id = id.to_owned();
        self.ask(move |relay| relay.close_mapping(&id))
    }

    fn status(&self, id: &str) -> Result<Option<PipeStatus>, Gone> {
        let id = id.to_owned();
        self.ask(move |relay| relay.mappings.status(&id))
    }

    fn status_of_all(&self) -> Result<Vec<(String, PipeStatus)>, Gone> {
        self.ask(|relay| relay.mappings.status_of_all())
    }

    fn totals(&self) -> Result<Totals, Gone> {
        self.ask(|relay| relay.totals())
    }

    fn stop(&self, why: String) -> Result<(), Gone> {
        let since = Instant::now();
        self.ask(move |relay| relay.stop(since, &why))
    }

    fn turns_within(&self, limit: Duration) -> bool {
        let (reply, answer) = channel();
        let command: Command = Box::new(move |_| {
            // Nobody may wait any more.
            let _ = reply.send(());
        });
        let asked = self.commands.send(command).is_ok() && self.waker.wake().is_ok();
        asked && answer.recv_timeout(limit).is_ok()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
