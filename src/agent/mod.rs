//! The other end of the wire: dials out to a Connector, and joins who comes through it to a local service.
//!
//! The same loop as the daemon's with the arrows reversed, on the same reactor, links, pump, TLS and buffers. One
//! thread does all of it; names are looked up in helper threads. Nothing here blocks, and nothing here knows of the
//! daemon.
//!
//! ```text
//! line:    Dialling -> Handshaking -> Greeting -> Free                                  (dial)
//!          Free -> Summoning -> Joined -> closing                                       (line, service, session)
//!          Free -> Summoning -> Answering -> Joined          a tunnel's exposing end    (tunnel)
//!          Free -> Calling -> Joined                         a tunnel's listening end   (tunnel)
//! service: Connecting -> Local -> closing                                               (service, session)
//! client:  Waiting -> Local -> HalfClosed? -> closing                                   (clients, session)
//! ```
//!
//! A line serves one session. When it ends, its place in the [`pool`] is filled again at once.

pub mod arguments;
mod backoff;
mod clients;
mod dial;
mod ends;
mod failure;
pub(crate) mod file;
pub(crate) mod heartbeat;
mod line;
mod pool;
mod resolver;
mod service;
mod session;
pub mod settings;
mod start;
mod state;
pub mod target;
pub(crate) mod tunnel;

use crate::limits::{DELIVERY, HALF_CLOSED_CONTENDED, LAST_WORDS};
use crate::net::closing::Cause;
use crate::net::reactor::{Key, Reactor, Socket, TICK};
use crate::net::shortage;
use crate::throttle::{self, Throttle, and_more};
use clients::Clients;
use failure::Failure;
use log::{info, warn};
use pool::{Place, Pool};
use resolver::Resolver;
use rustls::ClientConfig;
use settings::Settings;
pub use start::{Handle, StartError, run};
use state::State;
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
    asking: Vec<Place>,
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
    last_failure: Option<Discriminant<Failure>>,
    failures: Throttle,
    losses: Throttle,
    absences: Throttle,
    shortages: Throttle,
    refusals: Throttle,
    crowds: Throttle,
    unanswered: Throttle,
}

/// The reactor's own tokens.
const WAKE: usize = 0;
const CLIENTS: usize = 1;
/// While the agent ends, it looks this often whether everything has been delivered.
const LOOK: Duration = Duration::from_millis(20);

impl Agent {
    /// Serves until told to stop. Errors: the system's, from poll.
    pub fn run(&mut self) -> io::Result<()> {
        let mut own = Vec::new();
        let mut tick = Instant::now();
        self.reactor.wake_by(tick);
        loop {
            self.reactor.wait(&mut own)?;
            if self.stop.load(Ordering::Relaxed) {
                self.end_all();
            }
            for token in std::mem::take(&mut own) {
                // What a waker says is found below.
                if token == CLIENTS && self.welcome_clients() {
                    own.push(CLIENTS);
                }
            }
            for _ in 0..self.reactor.queued() {
                let Some(key) = self.reactor.next_ready() else { break };
                self.work(key);
            }
            let now = self.reactor.now;
            if self.reactor.scan_is_due() | (now >= tick) {
                self.enforce_deadlines();
                self.send_heartbeats();
                self.call_again();
                self.fill_places();
            }
            if now >= tick {
                tick = now + TICK;
                self.housekeeping();
            }
            self.take_answers();
            if self.has_ended() {
                return Ok(());
            }
        }
    }

    /// Gives one connection its turn.
    fn work(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Dialling { .. } => self.dial_further(key),
            State::Handshaking { .. } | State::Greeting { .. } => self.greet(key),
            State::Free(_) => self.attend(key),
            // Not read before the service is there.
            State::Summoning { .. } => {}
            State::Answering { .. } => self.hear_client(key),
            State::Calling { .. } => self.hear_service(key),
            State::Joined { local, .. } => self.relay(key, local),
            State::Connecting { .. } => self.connect_further(key),
            State::Waiting { .. } => self.look_after_client(key),
            State::Local { line } | State::HalfClosed { line, .. } => self.relay(line, key),
            State::Closing(_) => self.close_further(key),
        }
    }

    /// Looks through all connections for those that have outstayed their state.
    fn enforce_deadlines(&mut self) {
        let (now, absence, patience) = (self.reactor.now, self.settings.absence, self.patience());
        let mut overdue = Vec::new();
        let mut next = now + TICK;
        for (key, socket) in self.reactor.iter() {
            let own = socket.state.deadline(&socket.link, absence, patience);
            match [own, self.delivery_deadline(socket)].into_iter().flatten().min() {
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
                    self.end(key, Cause::Broken(key));
                }
                State::Dialling { .. } => self.dial_next(key, io::ErrorKind::TimedOut.into()),
                State::Handshaking { .. } | State::Greeting { .. } => self.give_up(key, Failure::TooSlow),
                State::Free(_) | State::Joined { .. } => self.absent(key),
                State::Summoning { .. } => self.refused(key, &io::ErrorKind::TimedOut.into()),
                State::Answering { .. } => self.end(key, Cause::Interrupted),
                State::Calling { .. } => self.nobody_answers(key),
                State::Connecting { .. } => self.connect_next(key, io::ErrorKind::TimedOut.into()),
                State::Waiting { .. } => self.dismiss_client(key),
                State::HalfClosed { line, .. } => self.end_half_closed(key, line),
                State::Local { .. } => {}
                State::Closing(_) => self.close_at_last(key),
            }
        }
    }

    /// Until when the end of a session is kept for a reader that takes nothing, while who sent it is gone already.
    fn delivery_deadline(&self, Socket { link, state, .. }: &Socket<State>) -> Option<Instant> {
        let (State::Joined { local: sender, .. }
        | State::Local { line: sender }
        | State::HalfClosed { line: sender, .. }) = state
        else {
            return None;
        };
        let sender = &self.reactor.get(*sender)?.link;
        let is_gone = sender.has_hung_up() || sender.has_ended();
        (is_gone && !link.is_flushed()).then(|| link.told + DELIVERY)
    }

    /// Once a second: clients that could not be taken in, buffers that are not to be had, readers that are slow.
    fn housekeeping(&mut self) {
        self.welcome_clients();
        self.end_stalled();
        let now = self.reactor.now;
        self.reactor.links_mut().for_each(|link| link.review_patience(now));
        throttle::tell_held_back(now);
    }

    /// All relay buffers are in use and somebody waits: those go that hold some without progress.
    fn end_stalled(&mut self) {
        for (key, peer) in shortage::to_end(&self.reactor) {
            if let Some(unsaid) = self.log.shortages.may_say(self.reactor.now) {
                let more = and_more(unsaid);
                warn!("All relay buffers are in use; the connection of {peer}, which is stuck, is ended{more}");
            }
            self.end(key, Cause::Broken(key));
        }
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
        self.ending = Some(now + LAST_WORDS);
        self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
        if let Near::Clients(clients) = &mut self.near {
            clients.close();
        }
        let keys: Vec<Key> = self.reactor.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Joined { .. } | State::Local { .. } | State::HalfClosed { .. } => self.reactor.again(key),
                State::Closing(_) => {}
                State::Waiting { .. } => self.dismiss_client(key),
                State::Dialling { .. } | State::Handshaking { .. } | State::Greeting { .. } => {
                    self.give_up(key, Failure::TooSlow);
                }
                State::Free(_) => self.release(key),
                _ => self.end(key, Cause::Interrupted),
            }
        }
    }

    /// Nobody is served any more, or the time for that is over.
    fn has_ended(&mut self) -> bool {
        let Some(end) = self.ending else { return false };
        let now = self.reactor.now;
        let is_done = |Socket { link, state, .. }: &Socket<State>| match state {
            State::Closing(closing) => closing.has_delivered(link),
            _ => false,
        };
        let ended = now >= end || self.reactor.iter().all(|(_, socket)| is_done(socket));
        if !ended {
            // Acknowledgements raise no event.
            self.reactor.wake_by(end.min(now + LOOK));
        }
        ended
    }
}
