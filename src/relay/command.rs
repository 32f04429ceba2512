//! How the control thread talks to the event loop: a channel in, a waker, and a reply channel a question.
//!
//! The loop answers within one turn; it never waits for the control thread.

use crate::mapping::Mapping;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

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
    /// New connections get this certificate; `None` in dev mode.
    Reload {
        tls: Option<Arc<ServerConfig>>,
    },
    /// Close listeners, deliver what is in flight, end.
    Stop,
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
}

/// The loop is gone; the daemon is ending.
#[derive(Debug)]
pub struct Gone;

/// The control thread's end. Every call waits for the loop's answer, which comes within one turn of it.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
}

impl Handle {
    pub(crate) fn new(waker: Arc<mio::Waker>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = channel();
        (Self { commands, waker }, inbox)
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
    pub fn reload(&self, tls: Option<Arc<ServerConfig>>) -> Result<(), Gone> {
        self.send(Command::Reload { tls })
    }

    /// Asks the loop to end.
    pub fn stop(&self) -> Result<(), Gone> {
        self.send(Command::Stop)
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
