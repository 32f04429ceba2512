//! Local connections: the service, looked up and dialled when somebody comes and not before.

use super::Agent;
use super::names::Answer;
use super::names::at_port;
use super::service::Service;
use super::service::Topic;
use super::state::{Destination, First, Line, Local, ServiceId, Session, State, Task};
use crate::limits::CONNECT_SERVICE;
use crate::net::reactor::Key;
use crate::net::service::Service as _;
use crate::net::session::{self, Cause, Interruption};
use std::collections::HashMap;
use std::io;

impl Agent {
    /// The line, if it is one.
    pub(super) fn line_mut(&mut self, key: Key) -> Option<&mut Line> {
        self.reactor.get_mut(key).and_then(|(socket, _)| socket.state.line_mut())
    }

    /// A free line is needed: the service is looked up.
    pub(super) fn connect_to_service(&mut self, key: Key, first: First) {
        let until = self.reactor.now + CONNECT_SERVICE;
        let Some(service) = self.reactor.get(key).map(|socket| socket.state.service()) else { return };
        let Some(service) = self.services.get(&service) else { return };
        self.names.ask(&service.settings.target);
        let Some(line) = self.line_mut(key) else { return };
        line.used = true;
        line.task = Task::Connecting { first, local: None, until };
        self.reactor.wake_by(until);
    }

    /// Addresses have been looked up, or could not be: the lines that wait for them go on.
    pub(super) fn found_local(&mut self, answers: &HashMap<String, Answer>) {
        let waits = |line: &Line| matches!(line.task, Task::Connecting { local: None, .. });
        for line in self.reactor.keys(|socket| socket.state.line().is_some_and(waits)) {
            let Some(Service { id, settings, .. }) = self.service_of(line) else { continue };
            let (service, port) = (*id, settings.target.port);
            match answers.get(&settings.target.host) {
                Some(Ok(addresses)) => self.dial(Destination::Local { service, line }, at_port(addresses, port)),
                Some(Err(e)) => self.refused(line, e),
                None => {}
            }
        }
    }

    /// The connection that is dialled for a line.
    pub(super) fn set_local(&mut self, to: Destination, key: Option<Key>) {
        let Destination::Local { line, .. } = to else { return };
        if let Some(Line { task: Task::Connecting { local, .. }, .. }) = self.line_mut(line) {
            *local = key;
        }
    }

    /// Nobody can serve who came: the line is closed, so that its user sees an end and not silence.
    pub(super) fn refused(&mut self, line: Key, error: &io::Error) {
        if let Some(service) = self.service_of_mut(line) {
            let target = &service.settings.target;
            let what = format!("The local service {target} cannot be reached, a session is ended: {error}");
            service.figures.failed(&what);
            self.warn(line, Topic::Refusal, what);
        }
        self.end(line, Cause::Interrupted(Interruption::Refused));
    }

    /// The service is there: it gets what has come for it, or the other end of the tunnel is told.
    pub(super) fn reached_service(&mut self, key: Key, service: ServiceId, line: Key) {
        self.reactor.change(key, State::Local(Local { service, line, is_client: false, half_closed: None }));
        let now = self.reactor.now;
        let Some(Task::Connecting { first, .. }) =
            self.line_mut(line).map(|its| std::mem::replace(&mut its.task, Task::Joined { local: key }))
        else {
            return self.end(key, Cause::interrupted("its line is gone"));
        };
        match first {
            First::Payload(_) | First::Open(_) => {
                self.join(line, key);
                let Some(service) = self.services.get(&service) else { return };
                let mut bytes = Self::introduction(service, &first).unwrap_or_default();
                if let First::Payload(payload) = first {
                    self.count(line, payload.len() as u64);
                    bytes.extend(payload);
                }
                if bytes.is_empty() {
                    return;
                }
                let Some((socket, ctx)) = self.reactor.get_mut(key) else { return };
                let Err(fault) = socket.link.send(&bytes, ctx, now) else { return };
                if let Some(cause) = session::end_of_sink(&self.reactor, key, fault) {
                    self.end(key, cause);
                }
            }
            First::Call => match self.answer_call(line, key) {
                Ok(()) => self.reactor.again(line),
                Err(fault) => self.end(line, Cause::Failed(line, fault)),
            },
        }
    }

    /// Both sides are there: payload flows from here on.
    pub(super) fn join(&mut self, line: Key, local: Key) {
        session::begin(&mut self.reactor, [line, local]);
        let now = self.reactor.now;
        if let Some(line) = self.line_mut(line) {
            line.session = Session::new(now);
        }
        if let Some(service) = self.service_of_mut(line) {
            service.figures.sessions += 1;
        }
        [line, local].into_iter().for_each(|key| self.reactor.again(key));
    }

    /// A local connection has its turn.
    pub(super) fn serve_local(&mut self, key: Key, line: Key) {
        match self.reactor.get(line).and_then(|socket| socket.state.line()).map(|line| &line.task) {
            Some(Task::Joined { .. }) => self.relay(line, key),
            Some(Task::Opening { call_at: Some(_), .. } | Task::Calling { .. }) => self.look_after_client(key),
            // What the service says first waits until the other end of the tunnel listens.
            _ => {}
        }
    }
}
