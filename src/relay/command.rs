//! How the control thread talks to the event loop: a channel in, a waker, and a reply channel a question.
//!
//! The loop answers within one turn; it never waits for the control thread.

use crate::cidr::Cidr;
use crate::mapping::Mapping;
use crate::net::certificate::ServerTls;
use crate::net::expiry::Expiry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Instant, SystemTime};

/// What the control thread may ask of the loop.
pub(crate) enum Command {
    /// Bind the mapping's ports and start serving. All or nothing.
    Open {
        mapping: Mapping,
        reply: Sender<Result<(), OpenError>>,
    },
    /// The same for a mapping that must exist even if its ports are not to be had now: retried every second.
    Restore {
        mapping: Mapping,
        reply: Sender<Vec<OpenError>>,
    },
    /// Close the ports and every connection of this mapping.
    Close {
        id: String,
        reply: Sender<()>,
    },
    Status {
        id: String,
        reply: Sender<Option<PipeStatus>>,
    },
    /// The status of every open mapping, by id.
    StatusOfAll {
        reply: Sender<Vec<(String, PipeStatus)>>,
    },
    Totals {
        reply: Sender<Totals>,
    },
    /// New connections get this certificate; `None` in dev mode.
    Reload {
        tls: Option<ServerTls>,
    },
    /// Only these may call the API from now on; `None`: everybody.
    Admit {
        controllers: Option<Vec<Cidr>>,
        reply: Sender<()>,
    },
    /// Close listeners, deliver what is in flight, end. The time for that counts from `since`.
    Stop {
        since: Instant,
    },
}

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
    /// Authorized, joined to somebody or not.
    pub authorized: usize,
    /// Authorized and joined to nobody.
    pub free: usize,
    /// Connected, without a passcode yet.
    pub strangers: usize,
    /// Wrong passcodes since the mapping was opened.
    pub rejected: u64,
}

impl AgentCounts {
    /// Joined to a user or a peer.
    pub fn joined(&self) -> usize {
        self.authorized.saturating_sub(self.free)
    }

    /// Both taken together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            authorized: self.authorized + other.authorized,
            free: self.free + other.free,
            strangers: self.strangers + other.strangers,
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
    pub forth: u64,
    /// Came in at port2, for port1.
    pub back: u64,
    /// From agents that were joined to nobody.
    pub discarded: u64,
    /// How many agents that was. No bytes.
    pub unsettled: u64,
}

impl Traffic {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            forth: self.forth + other.forth,
            back: self.back + other.back,
            discarded: self.discarded + other.discarded,
            unsettled: self.unsettled + other.unsettled,
        }
    }
}

/// What the loop knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections of agents, users and strangers.
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
    /// The same, in bytes a second, on the average of the last seconds.
    pub rates: Traffic,
    /// Until when the certificate is valid; `None` in dev mode.
    pub expiry: Option<Expiry>,
}

/// The loop is gone; the daemon is ending.
#[derive(Debug)]
pub struct Gone;

/// The control thread's end. Every call waits for the loop's answer, which comes within one turn of it.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    stopping: Arc<AtomicBool>,
}

impl Handle {
    pub(crate) fn new(waker: Arc<mio::Waker>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = channel();
        (Self { commands, waker, stopping: Arc::default() }, inbox)
    }

    /// Opens `mapping`, or says which port could not be bound.
    pub fn open(&self, mapping: &Mapping) -> Result<Result<(), OpenError>, Gone> {
        self.ask(|reply| Command::Open { mapping: mapping.clone(), reply })
    }

    /// Opens `mapping` now or later; answers with the ports that could not be bound yet.
    pub fn restore(&self, mapping: &Mapping) -> Result<Vec<OpenError>, Gone> {
        self.ask(|reply| Command::Restore { mapping: mapping.clone(), reply })
    }

    /// Closes the mapping; its connections are gone when this returns.
    pub fn close(&self, id: &str) -> Result<(), Gone> {
        self.ask(|reply| Command::Close { id: id.to_owned(), reply })
    }

    /// `None` if no such mapping is open.
    pub fn status(&self, id: &str) -> Result<Option<PipeStatus>, Gone> {
        self.ask(|reply| Command::Status { id: id.to_owned(), reply })
    }

    /// New connections get this certificate from now on; the others keep theirs. `None` in dev mode.
    pub fn reload(&self, tls: Option<ServerTls>) -> Result<(), Gone> {
        self.send(Command::Reload { tls })
    }

    /// Only these addresses may call the API from now on; `None`: everybody may.
    pub fn admit(&self, controllers: Option<Vec<Cidr>>) -> Result<(), Gone> {
        self.ask(|reply| Command::Admit { controllers, reply })
    }

    /// The status of every open mapping, by id.
    pub fn status_of_all(&self) -> Result<Vec<(String, PipeStatus)>, Gone> {
        self.ask(|reply| Command::StatusOfAll { reply })
    }

    /// What the loop knows of itself.
    pub fn totals(&self) -> Result<Totals, Gone> {
        self.ask(|reply| Command::Totals { reply })
    }

    /// Asks the loop to end.
    pub fn stop(&self) -> Result<(), Gone> {
        self.send(Command::Stop { since: Instant::now() })
    }

    /// Where the loop says that it is about to end, while it lets sessions deliver what is in flight.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// The loop is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, Gone> {
        let (reply, answer) = channel();
        self.send(command(reply))?;
        answer.recv().map_err(|_| Gone)
    }

    fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }
}
