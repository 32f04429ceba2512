//! Lines that nobody needs yet: listening for the first payload, and the heartbeats of all lines.

use super::Agent;
use super::service::Topic;
use super::settings::{Role, Settings};
use super::state::{First, Line, State, Task};
use crate::net::buffers::IoContext;
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Key, SocketMut};
use crate::net::service::Service as _;
use crate::net::session::Cause;
use crate::wire::tunnel::is_call;
use crate::wire::v1::{self, BEAT, BEATS_A_RECORD};
use std::time::{Duration, Instant};

/// Messages of a free line that are looked at in one turn.
const GLANCES: usize = 16;
/// Plain bytes that are read at once where heartbeats must be told from payload.
const GLANCE: usize = 16 * 1024;
/// Deadlines of heartbeats are not met more exactly than this: one look through all lines serves many.
const GRAIN: Duration = Duration::from_millis(20);

impl Agent {
    /// Listens to a free line.
    pub(super) fn read_free(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return };
        if !matches!(line.task, Task::Free) {
            return;
        }
        if line.framed.is_some() {
            return self.read_frames(key);
        }
        let heard = listen_to(link, line, ctx, now);
        let wanted = matches!(heard, Ok((_, Input::Starved))).then(|| link.record_want());
        self.reactor.wait_for_buffer(key, wanted);
        match heard {
            Ok((payload, _)) if !payload.is_empty() => self.needed(key, payload),
            Ok((_, Input::Data)) => self.reactor.again(key),
            Ok((_, Input::WouldBlock | Input::Starved)) => {}
            Ok((_, Input::Eof)) => self.lost(key, Cause::Ended(key)),
            Err(fault) => self.lost(key, Cause::Failed(key, fault)),
        }
    }

    /// The first payload has come.
    pub(super) fn needed(&mut self, key: Key, bytes: Vec<u8>) {
        let Some(service) = self.service_of(key) else { return };
        match service.settings.role {
            Role::Expose if service.settings.may_tunnel && is_call(&bytes) => self.connect_to_service(key, First::Call),
            Role::Expose => self.connect_to_service(key, First::Payload(bytes)),
            Role::Listen => self.not_a_tunnel(key),
        }
    }

    /// The Connector has ended a line that nobody used.
    pub(super) fn lost(&mut self, key: Key, cause: Cause) {
        let id = self.reactor.get(key).map(|socket| socket.state.service());
        self.end(key, cause);
        let now = self.reactor.now;
        let Some(service) = id.and_then(|id| self.services.get_mut(&id)) else { return };
        if service.pool.authorized() == 0 && std::mem::take(&mut service.log.connected) {
            let connector = service.settings.connector.to_string();
            service.warn(Topic::Loss, format_args!("The Connector {connector} has closed all connections"), now);
        }
    }

    /// Sends the heartbeats that are due, and has the loop wake up for the next ones.
    pub(super) fn send_heartbeats(&mut self) {
        let lines = self.reactor.keys(|socket| socket.state.line().is_some());
        if let Some(next) = lines.into_iter().filter_map(|key| self.beat(key)).min() {
            self.reactor.wake_by(next.max(self.reactor.now + GRAIN));
        }
    }

    /// Sends the heartbeat of one line if it is due. Returns when the next one is.
    fn beat(&mut self, key: Key) -> Option<Instant> {
        let now = self.reactor.now;
        let Settings { heartbeat, absence, .. } = self.service_of(key)?.settings;
        let interval = heartbeat?;
        let (SocketMut { link, state: State::Line(line) }, ctx) = self.reactor.get_mut(key)? else { return None };
        if line.is_beyond_heartbeats() {
            return None;
        }
        let delicate =
            link.is_plain() && line.marked.is_none() && line.framed.is_none() && !matches!(line.task, Task::Free);
        let quiet_since = delicate.then(|| link.last_rx.max(link.last_tx));
        let pulse = &mut line.pulse;
        let due = pulse.due(interval, quiet_since);
        // Behind something that is not taken it would have to wait. What waits unread at the other end is life.
        if due <= now && link.is_flushed() && link.can_send(&ctx.pool) {
            pulse.sent(now);
            let said = match &mut line.framed {
                Some(framed) => {
                    framed.ping();
                    framed.send_due(link, ctx, now)
                }
                None => link.send(BEAT, ctx, now),
            };
            if let Err(fault) = said {
                self.end(key, Cause::Failed(key, fault));
            }
            // It may be dead then for want of an answer.
            if let Some(absence) = absence {
                self.reactor.wake_by(now + absence.max(GRAIN));
            }
            return Some(now + interval);
        }
        if delicate && pulse.awaited() > 0 && pulse.hold(now).is_none() {
            // What was held back for an answer that does not come goes out at last.
            self.reactor.again(key);
        }
        Some(due)
    }
}

/// Goes on until there is payload, or nothing. Payload that is returned may have more behind it.
fn listen_to(
    link: &mut Link,
    line: &mut Line,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<(Vec<u8>, Input), LinkError> {
    let mut payload = Vec::new();
    if let Some(got) = line.hear_marker(link, ctx, now)? {
        return Ok((payload, got));
    }
    let is_plain = link.is_plain();
    for _ in 0..GLANCES {
        let got = link.receive(GLANCE, ctx, now, |message| {
            let (rest, answers) = match v1::beats(message, BEATS_A_RECORD) {
                _ if line.marked.is_some() => (message, 0),
                _ if is_plain => v1::sift(message, line.pulse.awaited()),
                0 => (message, 0),
                answers => (&[][..], answers),
            };
            line.pulse.answered(answers, now);
            payload.extend_from_slice(rest);
        })?;
        if !payload.is_empty() || got != Input::Data {
            return Ok((payload, got));
        }
    }
    Ok((payload, Input::Data))
}
