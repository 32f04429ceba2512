//! The other end of the wire: dials out to Connectors, and joins who comes through them to local services.
//!
//! The same event loop as the daemon's ([`crate::net::service`]) with the arrows reversed. One thread does all of it;
//! names are looked up in helper threads. Nothing here blocks, and nothing here knows of the daemon.
//!
//! ```text
//! line:    Dialling -> Greeting -> Free                                       (connect, dial)
//!          Dialling -> Proxying -> Greeting -> Free  through a proxy          (connect, dial)
//!          Free -> Connecting -> Joined                                       (line, local)
//!          Free -> Connecting -> Opening -> Joined  a tunnel's exposing end   (tunnel)
//!          Free -> Opening -> Joined                a tunnel's listening end  (tunnel)
//!          Free -> Calling -> Joined -> Released -> Free  the same in frames  (tunnel, frames)
//! service: Dialling -> Local                                                  (local)
//! client:  Waiting -> Local                                                   (clients)
//! ```
//!
//! A line serves one session. When it ends, its place in the [`pool`] is filled again at once. Each [`service`] has a pool
//! of its own; a connection names its service in its state, and ends with it.

pub mod arguments;
mod clients;
mod connect;
mod dial;
mod error;
mod failure;
mod figures;
pub(crate) mod file;
mod frames;
pub(crate) mod heartbeat;
mod line;
mod local;
mod metrics;
mod monitor;
mod names;
mod plan;
mod pool;
pub(crate) mod proxy;
mod reload;
mod service;
pub(crate) mod services_file;
mod sessions;
pub mod settings;
mod start;
mod state;
pub mod status;
pub mod target;
pub(crate) mod tunnel;
mod usage;

use crate::limits::{DRAIN_TIMEOUT, HALF_CLOSED, HALF_CLOSED_CONTENDED};
use crate::logging::AccessLog;
use crate::net::closing::Ending;
use crate::net::reactor::{Close, Key, Reactor, Socket};
use crate::net::service as event_loop;
use crate::net::service::Service as _;
use crate::net::session::{Cause, STOPPING};
use crate::supervisor::Supervisor;
use crate::throttle::{self, Throttle, and_more};
pub use error::StartError;
use failure::Failure;
use log::info;
use names::Names;
use plan::Plan;
use service::{Service, Topic};
pub use start::{Handle, check, run};
use state::{Destination, Line, Local, ServiceId, State, Task};
use status::Questions;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The agent's event loop.
pub struct Agent {
    /// Each by itself: a tree of things of this size would be half empty.
    services: BTreeMap<ServiceId, Box<Service>>,
    next_id: ServiceId,
    /// Whose places come first when the next ones are filled.
    next_to_fill: ServiceId,
    /// Places could not be filled because so many are being filled already.
    is_crowded: bool,
    /// A place may be due: they are looked at when the turn ends, without a look at all connections.
    may_fill: bool,
    reactor: Reactor<State>,
    names: Names,
    /// Why it is to end; empty: it is not.
    stop: Arc<OnceLock<&'static str>>,
    /// The services that are to be from now on.
    reloads: Receiver<Vec<Plan>>,
    /// Who wants to know the status.
    questions: Questions,
    /// The agent is ending, and must have ended by then.
    ending: Option<Instant>,
    supervisor: Arc<Supervisor>,
    /// Feeds the service manager's watchdog.
    heartbeat: Box<dyn FnMut() + Send>,
    access_log: Option<AccessLog>,
    /// What the log has said of sessions that were ended for want of buffers.
    shortages: Throttle,
}

/// The reactor's own tokens.
const WAKE: usize = 0;
/// The first service's listener; those of others follow.
const CLIENTS: usize = 1;

impl Agent {
    /// Serves until told to stop. Errors: the system's, from poll.
    pub fn run(&mut self) -> io::Result<()> {
        self.supervisor.ready();
        let ended = event_loop::run(self);
        self.record_unfinished();
        ended
    }

    /// The service of a connection.
    fn service_of(&self, key: Key) -> Option<&Service> {
        self.services.get(&self.reactor.get(key)?.state.service()).map(Box::as_ref)
    }

    fn service_of_mut(&mut self, key: Key) -> Option<&mut Service> {
        let id = self.reactor.get(key)?.state.service();
        self.services.get_mut(&id).map(Box::as_mut)
    }

    /// Has the log say something of a connection's service.
    fn warn(&mut self, key: Key, topic: Topic, what: impl fmt::Display) {
        let Some(id) = self.reactor.get(key).map(|socket| socket.state.service()) else { return };
        if let Some(service) = self.services.get_mut(&id) {
            service.warn(topic, what, self.reactor.now);
        }
    }

    /// What the helper threads have found.
    fn take_answers(&mut self) {
        let answers = self.names.answers();
        if !answers.is_empty() {
            self.found_connectors(&answers);
            self.found_local(&answers);
        }
    }

    /// Lets sessions deliver what is in flight, and closes everything else.
    fn end_all(&mut self, why: &str) {
        if self.ending.is_some() {
            return;
        }
        info!("Stopping: {why}");
        self.supervisor.stopping();
        let now = self.reactor.now;
        self.ending = Some(now + DRAIN_TIMEOUT);
        self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
        for clients in self.services.values_mut().filter_map(|service| service.clients.as_mut()) {
            clients.listener = None;
        }
        for key in self.reactor.keys(|_| true) {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Line(Line { task: Task::Joined { .. }, .. }) | State::Local(_) => self.reactor.again(key),
                State::Line(Line { task: Task::Free | Task::Released { .. } | Task::Leaving { .. }, .. }) => {
                    self.close(key, Close::Now);
                }
                State::Waiting { .. } => self.close_client(key),
                State::Dialling { to: Destination::Connector(_), .. }
                | State::Proxying { .. }
                | State::Greeting { .. } => {
                    self.give_up(key, Failure::TooSlow);
                }
                State::Line(_) | State::Dialling { .. } => self.end(key, STOPPING),
            }
        }
    }

    /// A line's heartbeats have not been answered.
    fn absent(&mut self, key: Key) {
        let now = self.reactor.now;
        let id = self.reactor.get(key).map(|socket| socket.state.service());
        if let Some(service) = id.and_then(|id| self.services.get_mut(&id)) {
            if let Some(unsaid) = service.log.said.may_say(Topic::Absence, now) {
                let (label, more) = (service.label(), and_more(unsaid));
                info!("{label}The Connector does not answer heartbeats, connection closed{more}");
            }
        }
        self.end(key, Cause::Absent(key));
    }

    /// Gives back the place of a line that has ended.
    fn give_back(&mut self, line: &Line) {
        let now = self.reactor.now;
        let Some(service) = self.services.get_mut(&line.place.service) else { return };
        if line.has_proved_itself(now) {
            service.pool.renew(line.place.slot, now);
            self.may_fill = true;
        } else {
            self.reactor.wake_by(service.pool.fail(line.place.slot, now));
        }
    }
}

impl event_loop::Service for Agent {
    type State = State;

    fn reactor(&self) -> &Reactor<State> {
        &self.reactor
    }

    fn reactor_mut(&mut self) -> &mut Reactor<State> {
        &mut self.reactor
    }

    fn own_event(&mut self, number: usize) -> bool {
        if let Some(&why) = self.stop.get() {
            self.end_all(why);
        }
        // What the helper threads have found is looked at after each turn.
        number >= CLIENTS && self.accept_clients(number - CLIENTS)
    }

    fn ready(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let line = if let State::Local(local) = socket.state { local.line } else { key };
        match socket.state {
            State::Dialling { .. } => self.dial_further(key),
            State::Proxying { .. } => self.ask_proxy(key),
            State::Greeting { .. } => self.greet(key),
            State::Line(line) => match line.task {
                Task::Free => self.read_free(key),
                // Not read before the service is there.
                Task::Connecting { .. } => {}
                Task::Opening { .. } => self.open_tunnel(key),
                Task::Calling { local, .. } => self.read_called(key, local),
                Task::Joined { local } => self.relay(key, local),
                Task::Released { .. } | Task::Leaving { .. } => self.read_frames(key),
            },
            State::Waiting { .. } => self.look_after_client(key),
            State::Local(Local { line, .. }) => self.serve_local(key, *line),
        }
        self.note_wanted(line);
    }

    fn deadline(&self, socket: &Socket<'_, State>) -> Option<Instant> {
        let absence = self.services.get(&socket.state.service()).and_then(|service| service.settings.absence);
        socket.state.deadline(socket.link, absence)
    }

    fn overdue(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        match socket.state {
            State::Dialling { .. } => self.dial_is_slow(key),
            State::Proxying { .. } | State::Greeting { .. } => self.give_up(key, Failure::TooSlow),
            State::Line(line) => match line.task {
                Task::Calling { until, .. } if until <= self.reactor.now => self.call_is_late(key),
                Task::Free | Task::Calling { .. } | Task::Joined { .. } => self.absent(key),
                Task::Connecting { .. } => self.refused(key, &io::ErrorKind::TimedOut.into()),
                Task::Opening { .. } => self.nobody_answers(key),
                Task::Released { .. } => self.close(key, Close::Abort),
                Task::Leaving { .. } => self.close(key, Close::Drain(Ending::Complete)),
            },
            State::Waiting { .. } => self.close_client(key),
            State::Local(_) => {}
        }
    }

    fn patience(&self, state: &State) -> Duration {
        let contended = self.services.get(&state.service()).is_some_and(|service| service.has_waiting_clients());
        if contended || self.is_stopping() { HALF_CLOSED_CONTENDED } else { HALF_CLOSED }
    }

    fn after_deadlines(&mut self) {
        self.send_heartbeats();
        self.call_again();
        self.fill_places();
    }

    fn tick(&mut self) {
        (self.heartbeat)();
        let waits = |service: &&Service| service.clients.as_ref().is_some_and(|clients| clients.retry);
        let retried: Vec<ServiceId> =
            self.services.values().map(Box::as_ref).filter(waits).map(|service| service.id).collect();
        for id in retried {
            self.accept_clients(id);
        }
        throttle::tell_held_back(self.reactor.now);
        self.access_log.iter_mut().for_each(AccessLog::hand_over);
        self.shrink();
    }

    /// Nobody is served any more, or the time for that is over.
    fn is_over(&mut self) -> bool {
        while let Ok(plans) = self.reloads.try_recv() {
            self.reload(plans);
        }
        if self.may_fill {
            self.fill_places();
        }
        self.take_answers();
        if self.may_fill {
            // One has failed at once for which others had to wait.
            self.reactor.wake_by(self.reactor.now);
        }
        self.tell_status();
        self.ending.is_some_and(|end| self.reactor.is_drained(end, |_| false))
    }

    fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    fn ends(&mut self, key: Key, partner: Option<Key>, cause: &Cause) {
        if let Some(partner) = partner {
            self.record_end(key, partner, cause);
        }
    }

    fn release(&mut self, key: Key, ending: Ending, cause: &Cause) -> bool {
        self.release_line(key, ending, cause)
    }

    fn left(&mut self, state: State) {
        match state {
            State::Line(line) => self.give_back(&line),
            State::Waiting { service, .. } => self.client_has_left(service),
            _ => {}
        }
    }

    fn count(&mut self, key: Key, payload: u64) {
        let Some(socket) = self.reactor.get(key) else { return };
        let (id, line) = match socket.state {
            State::Local(Local { service, line, .. }) => (*service, *line),
            state => (state.service(), key),
        };
        let [received, sent] = if line == key { [payload, 0] } else { [0, payload] };
        if let Some(line) = self.line_mut(line) {
            line.session.received += received;
            line.session.sent += sent;
        }
        if let Some(service) = self.services.get_mut(&id) {
            service.figures.received += received;
            service.figures.sent += sent;
        }
    }

    fn shortages(&mut self) -> &mut Throttle {
        &mut self.shortages
    }
}
