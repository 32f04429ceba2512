//! What `agent status` shows: a Unix socket that answers each connection with one JSON object.
//!
//! A thread of its own asks the loop and writes the answer, one caller after the other: a caller that does not read
//! keeps the next one waiting for [`STATUS_ANSWER`], and the loop not at all.

use super::Agent;
use super::error::{StartError, system};
pub use super::figures::LastError;
use super::service::Service;
use super::settings::Role;
use super::state::{ServiceId, Task};
use crate::clock::{millis, timestamp};
use crate::limits::STATUS_ANSWER;
use log::warn;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// The whole answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with an agent's version and services")]
pub struct Report {
    pub version: String,
    /// Milliseconds since the epoch, as all moments here.
    pub timestamp: u64,
    pub services: Vec<ServiceReport>,
}

/// One service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "an object about a service")]
pub struct ServiceReport {
    /// `None`: the only one, which has no name.
    pub name: Option<String>,
    pub connector: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Since when it is as its settings say.
    pub since: u64,
    /// Authorized connections, and how many there are to be.
    pub connections: usize,
    pub maxconnections: usize,
    /// Sessions that are, and that have been or are.
    pub sessions: usize,
    pub totalsessions: u64,
    /// Clients that wait for a connection.
    pub waiting: usize,
    /// Bytes that came through the Connector, and that went there.
    pub received: u64,
    pub sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasterror: Option<LastError>,
}

/// Who asks the loop.
pub(super) type Questions = Receiver<Sender<Report>>;

/// Asks the loop what it does, from another thread.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) waker: Arc<mio::Waker>,
    pub(super) ask: Sender<Sender<Report>>,
}

impl Question {
    /// Errors: there was no answer within `patience`, or the agent is gone.
    pub(super) fn ask(&self, patience: Duration) -> Result<Report, RecvTimeoutError> {
        let gone = RecvTimeoutError::Disconnected;
        let (sender, report) = channel();
        self.ask.send(sender).map_err(|_| gone)?;
        self.waker.wake().map_err(|_| gone)?;
        report.recv_timeout(patience)
    }
}

/// To the agent behind a socket, without waiting for it: one that has been stopped accepts nobody, and to connect to it
/// would wait for ever once as many have asked as the kernel keeps for it.
///
/// # Errors
/// The operating system's; [`io::ErrorKind::WouldBlock`] in that case.
pub fn connect(file: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::from(mio::net::UnixStream::connect(file)?);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The socket. Its file goes when this does.
pub(super) struct StatusSocket {
    file: PathBuf,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // What is gone already is as good.
        let _ = fs::remove_file(&self.file);
    }
}

impl StatusSocket {
    /// Answers at `file` until the agent is gone.
    pub(super) fn open(file: &Path, question: Question) -> Result<Self, StartError> {
        let failed = |cause| StartError::Socket { file: file.to_owned(), cause };
        // One that was killed has left its socket.
        match connect(file).map_err(|e| e.kind()) {
            Ok(_) => return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"))),
            Err(io::ErrorKind::WouldBlock) => {
                return Err(failed(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another agent has it, and does not answer",
                )));
            }
            Err(io::ErrorKind::ConnectionRefused) => fs::remove_file(file).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(file).map_err(failed)?;
        let work = move || {
            for stream in listener.incoming() {
                let answered = match stream {
                    Ok(stream) => answer(stream, &question),
                    Err(e) => {
                        warn!("The status cannot be asked for: {e}");
                        thread::sleep(Duration::from_secs(1));
                        Ok(())
                    }
                };
                if answered.is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("status".into()).spawn(work).map_err(system("no thread for the status"))?;
        Ok(Self { file: file.to_owned() })
    }
}

/// Errors: the agent is gone. A caller that is gone is nobody's concern.
fn answer(mut stream: UnixStream, question: &Question) -> Result<(), ()> {
    let report = match question.ask(STATUS_ANSWER) {
        Ok(report) => report,
        Err(RecvTimeoutError::Timeout) => return Ok(()),
        Err(RecvTimeoutError::Disconnected) => return Err(()),
    };
    let text = serde_json::to_vec(&report).unwrap_or_default();
    let _ = stream.set_write_timeout(Some(STATUS_ANSWER)).and_then(|()| stream.write_all(&text));
    Ok(())
}

impl Agent {
    /// Answers those who ask for the status.
    pub(super) fn tell_status(&mut self) {
        while let Ok(caller) = self.questions.try_recv() {
            // A caller that is gone needs no answer.
            let _ = caller.send(self.report());
        }
    }

    fn report(&self) -> Report {
        let mut sessions: HashMap<ServiceId, usize> = HashMap::new();
        for line in self.reactor.iter().filter_map(|(_, socket)| socket.state.line()) {
            if matches!(line.task, Task::Joined { .. }) {
                *sessions.entry(line.place.service).or_default() += 1;
            }
        }
        let of = |service: &Service| service.report(sessions.get(&service.id).copied().unwrap_or_default());
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timestamp: timestamp(),
            services: self.services.values().map(Box::as_ref).map(of).collect(),
        }
    }
}

impl Service {
    fn report(&self, sessions: usize) -> ServiceReport {
        let target = Some(self.settings.target.to_string());
        let (to, listen) = if self.settings.role == Role::Expose { (target, None) } else { (None, target) };
        ServiceReport {
            name: self.settings.name.as_deref().map(str::to_owned),
            connector: self.settings.connector.to_string(),
            to,
            listen,
            since: millis(self.figures.since),
            connections: self.pool.authorized(),
            maxconnections: self.pool.size(),
            sessions,
            totalsessions: self.figures.sessions,
            waiting: self.clients.as_ref().map_or(0, |clients| clients.waiting),
            received: self.figures.received,
            sent: self.figures.sent,
            lasterror: self.figures.last_error.clone(),
        }
    }
}
