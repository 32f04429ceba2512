//! The other end of the wire: dials out to a Connector, and joins who comes through it to a local service.
//!
//! The same event loop as the daemon's ([`crate::net::service`]) with the arrows reversed. One thread does all of it;
//! names are looked up in helper threads. Nothing here blocks, and nothing here knows of the daemon.
//!
//! ```text
//! line:    Dialling -> Greeting -> Free                                       (dial)
//!          Free -> Connecting -> Joined                                       (line, local)
//!          Free -> Connecting -> Opening -> Joined  a tunnel's exposing end   (tunnel)
//!          Free -> Opening -> Joined                a tunnel's listening end  (tunnel)
//! service: Dialling -> Local                                                  (local)
//! client:  Waiting -> Local                                                   (clients)
//! ```
//!
//! A line serves one session. When it ends, its place in the [`pool`] is filled again at once.

pub mod arguments;
mod clients;
mod dial;
mod failure;
pub(crate) mod file;
pub(crate) mod heartbeat;
mod line;
mod local;
mod pool;
mod resolver;
pub mod settings;
mod start;
mod state;
pub mod target;
pub(crate) mod tunnel;

use crate::limits::{DRAIN_TIMEOUT, HALF_CLOSED, HALF_CLOSED_CONTENDED};
use crate::net::reactor::{Close, Key, Reactor, Socket};
use crate::net::service::{self, Service};
use crate::net::session::{Cause, STOPPING};
use crate::throttle::{self, Throttle, Throttles, and_more};
use clients::Clients;
use failure::Failure;
use log::{Level, debug, info, log_enabled, warn};
use pool::{Pool, SlotId};
use resolver::Resolver;
use rustls::ClientConfig;
use settings::Settings;
pub use start::{Handle, StartError, run};
use state::{Destination, Line, Local, State, Task};
use std::fmt;
use std::io;
use std::mem::Discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The agent's event loop.
pub struct Agent {
    settings: Settings,
    /// `None`: dev mode.
    tls: Option<Arc<ClientConfig>>,
    reactor: Reactor<State>,
    pool: Pool,
    connector: Resolver,
    /// In dev mode, from when on the Connector is asked whether it marks where payload begins.
    ask_again: Instant,
    /// Places that wait for the Connector's addresses.
    asking: Vec<SlotId>,
    near: Near,
    stop: Arc<AtomicBool>,
    /// The agent is ending, and must have ended by then.
    ending: Option<Instant>,
    log: Log,
}

/// The near side of the relay.
enum Near {
    /// Lines are joined to this service.
    Service(Resolver),
    /// Clients that come here are joined to lines.
    Clients(Clients),
}

/// What the log has said, so that it is said once and not a thousand times a second.
#[derive(Default)]
struct Log {
    /// The operator has been told that there is a connection, and not yet that there is none.
    connected: bool,
    /// The Connector has accepted the passcode at some time.
    was_accepted: bool,
    last_failure: Option<Discriminant<Failure>>,
    failures: Throttle,
    shortages: Throttle,
    said: Throttles<Topic>,
}

/// What a log line may be about again and again.
#[derive(PartialEq, Eq, Hash)]
enum Topic {
    Absence,
    Accept,
    Loss,
    NoLine,
    OtherEnd,
    Refusal,
}

impl Log {
    fn warn(&mut self, topic: Topic, what: fmt::Arguments<'_>, now: Instant) {
        if let Some(unsaid) = self.said.may_say(topic, now) {
            warn!("{what}{}", and_more(unsaid));
        }
    }
}

/// The reactor's own tokens.
const WAKE: usize = 0;
const CLIENTS: usize = 1;
/// While the agent ends, it looks this often whether everything has been delivered.
const LOOK: Duration = Duration::from_millis(20);

impl Agent {
    /// Serves until told to stop. Errors: the system's, from poll.
    pub fn run(&mut self) -> io::Result<()> {
        service::run(self)
    }

    /// What the helper threads have found.
    fn take_answers(&mut self) {
        if let Some(answer) = self.connector.answer() {
            self.found_connector(answer);
        }
        if let Near::Service(resolver) = &mut self.near {
            if let Some(answer) = resolver.answer() {
                self.found_service(answer);
            }
        }
    }

    /// Lets sessions deliver what is in flight, and closes everything else.
    fn end_all(&mut self) {
        if self.ending.is_some() {
            return;
        }
        info!("Stopping");
        let now = self.reactor.now;
        self.ending = Some(now + DRAIN_TIMEOUT);
        self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
        if let Near::Clients(clients) = &mut self.near {
            clients.listener = None;
        }
        for key in self.reactor.keys(|_| true) {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Line(Line { task: Task::Joined { .. }, .. }) | State::Local(_) => self.reactor.again(key),
                State::Line(Line { task: Task::Free, .. }) => self.close(key, Close::Now),
                State::Waiting { .. } => self.close_client(key),
                State::Dialling { to: Destination::Connector(_), .. } | State::Greeting { .. } => {
                    self.give_up(key, Failure::TooSlow);
                }
                State::Line(_) | State::Dialling { .. } => self.end(key, STOPPING),
            }
        }
    }

    /// A line's heartbeats have not been answered.
    fn absent(&mut self, key: Key) {
        if let Some(unsaid) = self.log.said.may_say(Topic::Absence, self.reactor.now) {
            info!("The Connector does not answer heartbeats, connection closed{}", and_more(unsaid));
        }
        self.end(key, Cause::Absent(key));
    }

    /// Gives back the place of a line that has ended.
    fn give_back(&mut self, line: &Line) {
        let now = self.reactor.now;
        let due = match line.has_proved_itself(now) {
            true => self.pool.renew(line.place, now),
            false => self.pool.fail(line.place, now),
        };
        self.reactor.wake_by(due);
    }
}

impl Service for Agent {
    type State = State;

    fn reactor(&self) -> &Reactor<State> {
        &self.reactor
    }

    fn reactor_mut(&mut self) -> &mut Reactor<State> {
        &mut self.reactor
    }

    fn own_event(&mut self, number: usize) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            self.end_all();
        }
        // What the helper threads have found is looked at after each turn.
        number == CLIENTS && self.accept_clients()
    }

    fn ready(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Dialling { .. } => self.dial_further(key),
            State::Greeting { .. } => self.greet(key),
            State::Line(line) => match line.task {
                Task::Free => self.read_free(key),
                // Not read before the service is there.
                Task::Connecting { .. } => {}
                Task::Opening { .. } => self.open_tunnel(key),
                Task::Joined { local } => self.relay(key, local),
            },
            State::Waiting { .. } => self.look_after_client(key),
            State::Local(Local { line, .. }) => self.serve_local(key, *line),
        }
    }

    fn deadline(&self, socket: &Socket<'_, State>) -> Option<Instant> {
        socket.state.deadline(socket.link, self.settings.absence)
    }

    fn overdue(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Dialling { .. } => self.dial_next(key, io::ErrorKind::TimedOut.into()),
            State::Greeting { .. } => self.give_up(key, Failure::TooSlow),
            State::Line(line) => match line.task {
                Task::Free | Task::Joined { .. } => self.absent(key),
                Task::Connecting { .. } => self.refused(key, &io::ErrorKind::TimedOut.into()),
                Task::Opening { .. } => self.nobody_answers(key),
            },
            State::Waiting { .. } => self.close_client(key),
            State::Local(_) => {}
        }
    }

    fn patience(&self, _: &State) -> Duration {
        let contended = matches!(&self.near, Near::Clients(clients) if clients.waiting > 0);
        if contended || self.is_stopping() { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    fn after_deadlines(&mut self) {
        self.send_heartbeats();
        self.call_again();
        self.fill_places();
    }

    fn tick(&mut self) {
        self.accept_clients();
        throttle::tell_held_back(self.reactor.now);
    }

    /// Nobody is served any more, or the time for that is over.
    fn is_over(&mut self) -> bool {
        self.take_answers();
        let Some(end) = self.ending else { return false };
        let now = self.reactor.now;
        let over = now >= end || self.reactor.has_delivered(|_| false);
        if !over {
            // Acknowledgements raise no event.
            self.reactor.wake_by(end.min(now + LOOK));
        }
        over
    }

    fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    fn ends(&mut self, key: Key, partner: Option<Key>, cause: &Cause) {
        let Some(partner) = partner else { return };
        if !log_enabled!(Level::Debug) {
            return;
        }
        let peer = |key| self.reactor.get(key).map(|socket| socket.link.peer);
        if let (Some(one), Some(other)) = (peer(key), peer(partner)) {
            let by = cause.by().and_then(peer).map(|by| format!("{by}: ")).unwrap_or_default();
            debug!("The session of {one} and {other} has ended, {by}{cause}");
        }
    }

    fn left(&mut self, state: State) {
        match state {
            State::Line(line) => self.give_back(&line),
            State::Waiting { .. } => self.client_has_left(),
            _ => {}
        }
    }

    fn shortages(&mut self) -> &mut Throttle {
        &mut self.log.shortages
    }
}
