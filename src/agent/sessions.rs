//! What is logged of a session when it ends: a line at level debug, and one of the access log.

use super::Agent;
use super::settings::Role;
use super::state::{State, Task};
use crate::logging::{AccessLog, Field, text};
use crate::net::reactor::Key;
use crate::net::session::{Cause, End, STOPPING};
use log::{Level, debug, log_enabled};

impl Agent {
    /// The session of `one` and `other` is about to end.
    pub(super) fn record_end(&mut self, one: Key, other: Key, cause: &Cause) {
        let debugs = log_enabled!(Level::Debug);
        if !debugs && self.access_log.is_none() {
            return;
        }
        let is_line = |key: Key| self.reactor.get(key).is_some_and(|it| it.state.line().is_some());
        let (line_key, local_key) = if is_line(one) { (one, other) } else { (other, one) };
        let (Some(socket), Some(local)) = (self.reactor.get(line_key), self.reactor.get(local_key)) else { return };
        let State::Line(line) = socket.state else { return };
        let (Some(service), Task::Joined { .. }) = (self.services.get(&line.place.service), &line.task) else { return };
        let near = if service.settings.role == Role::Listen { "client" } else { "local" };
        let side = |key| if key == line_key { "connector" } else { near };
        let ended = match cause.end() {
            End::Side(key) => side(key),
            end => end.word(),
        };
        let fields = [
            ("service", service.settings.name.as_deref().into()),
            ("connector", Field::Address(socket.link.peer)),
            (near, Field::Address(local.link.peer)),
            ("received", Field::Bytes(line.session.received)),
            ("sent", Field::Bytes(line.session.sent)),
            ("duration", Field::Seconds(self.reactor.now.saturating_duration_since(line.session.since))),
            ("tls", socket.link.tls_version().into()),
            ("ended", Field::Word(ended)),
            ("by", cause.by().map(side).into()),
        ];
        if debugs {
            let why = cause.by().map(|by| format!("{}: ", side(by))).unwrap_or_default();
            debug!("{}A session has ended, {why}{cause};{}", service.label(), text(fields));
        }
        if let Some(access_log) = &mut self.access_log {
            access_log.write(fields);
        }
    }

    /// What is still there when the agent ends.
    pub(super) fn record_unfinished(&mut self) {
        for key in self.reactor.keys(|socket| socket.state.line().is_some()) {
            let task = self.reactor.get(key).and_then(|socket| socket.state.line()).map(|line| &line.task);
            if let Some(&Task::Joined { local }) = task {
                self.record_end(key, local, &STOPPING);
            }
        }
        self.access_log.iter_mut().for_each(AccessLog::hand_over);
    }
}
