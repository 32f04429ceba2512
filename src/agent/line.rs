//! Lines that nobody needs yet: listening for the first payload, and the heartbeats of all lines.

use super::Agent;
use super::heartbeat::sift;
use super::settings::Role;
use super::state::{First, Line, State};
use super::tunnel;
use crate::net::buffers::Desk;
use crate::net::closing::Cause;
use crate::net::link::{Fault, Got, Link};
use crate::net::reactor::Key;
use crate::net::wire::{self, BEAT, BEATS_A_RECORD};
use crate::throttle::and_more;
use log::warn;
use std::time::{Duration, Instant};

/// Messages of a free line that are looked at in one turn.
const GLANCES: usize = 16;
/// Plain bytes that are read at once where heartbeats must be told from payload.
pub(super) const GLANCE: usize = 16 * 1024;
/// Deadlines of heartbeats are not met more exactly than this: one look through all lines serves many.
const GRAIN: Duration = Duration::from_millis(20);

/// What a free line has heard.
enum Heard {
    Nothing(Got),
    Payload(Vec<u8>),
}

impl Agent {
    /// Listens to a free line.
    pub(super) fn attend(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Free(line) = &mut socket.state else { return };
        let heard = listen_to(&mut socket.link, line, desk, now);
        let wanted = matches!(heard, Ok(Heard::Nothing(Got::Starved))).then(|| socket.link.record_want());
        self.reactor.note_hunger(key, wanted);
        match heard {
            Ok(Heard::Nothing(Got::Some)) => self.reactor.again(key),
            Ok(Heard::Nothing(Got::Dry | Got::Starved)) => {}
            Ok(Heard::Nothing(Got::End)) => self.lost(key, Cause::Ended),
            Ok(Heard::Payload(bytes)) => self.needed(key, bytes),
            Err(_) => self.lost(key, Cause::Broken(key)),
        }
    }

    /// The first payload has come.
    fn needed(&mut self, key: Key, bytes: Vec<u8>) {
        match &self.settings.role {
            Role::Expose { .. } if tunnel::is_call(&bytes) => self.summon(key, First::Call),
            Role::Expose { .. } => self.summon(key, First::Payload(bytes)),
            Role::Listen { .. } => self.not_a_tunnel(key),
        }
    }

    /// The Connector has ended a line that nobody used.
    fn lost(&mut self, key: Key, cause: Cause) {
        self.end(key, cause);
        let now = self.reactor.now;
        if self.pool.authorized() == 0 && std::mem::take(&mut self.log.connected) {
            if let Some(unsaid) = self.log.losses.may_say(now) {
                warn!("The Connector {} has closed all connections{}", self.settings.connector, and_more(unsaid));
            }
        }
    }

    /// Sends the heartbeats that are due, and has the loop wake up for the next ones.
    pub(super) fn send_heartbeats(&mut self) {
        let Some(interval) = self.settings.heartbeat else { return };
        let lines = self.reactor.iter().filter(|(_, socket)| socket.state.line().is_some()).map(|(key, _)| key);
        let lines: Vec<Key> = lines.collect();
        if let Some(next) = lines.into_iter().filter_map(|key| self.beat(key, interval)).min() {
            self.reactor.wake_by(next.max(self.reactor.now + GRAIN));
        }
        self.watch_for_death();
    }

    /// Sends the heartbeat of one line if it is due. Returns when the next one is.
    fn beat(&mut self, key: Key, interval: Duration) -> Option<Instant> {
        let now = self.reactor.now;
        let (socket, desk) = self.reactor.get_mut(key)?;
        let link = &mut socket.link;
        let is_marked = socket.state.line()?.marked.is_some();
        let delicate = link.is_plain() && !is_marked && !matches!(socket.state, State::Free(_));
        let quiet_since = delicate.then(|| link.heard.max(link.told));
        let line = socket.state.line_mut().filter(|line| !line.is_beyond_heartbeats())?;
        let pulse = &mut line.pulse;
        let due = pulse.due(interval, quiet_since);
        // Behind something that is not taken it would have to wait. What waits unread at the other end is life.
        if due <= now && link.is_flushed() && link.can_send(&desk.pool) {
            pulse.sent(now);
            if link.send(BEAT, desk, now).is_err() {
                self.end(key, Cause::Broken(key));
            }
            return Some(now + interval);
        }
        if delicate && pulse.awaited() > 0 && pulse.hold(now).is_none() {
            // What was held back for an answer that does not come goes out at last.
            self.reactor.again(key);
        }
        Some(due)
    }

    /// Has the loop wake up when the first line is dead for want of an answer.
    fn watch_for_death(&mut self) {
        let absence = self.settings.absence;
        let lines = self.reactor.iter().filter(|(_, socket)| socket.state.line().is_some());
        if let Some(first) = lines.filter_map(|(_, s)| s.state.dead_at(&s.link, absence)).min() {
            self.reactor.wake_by(first.max(self.reactor.now + GRAIN));
        }
    }
}

/// Takes in heartbeats up to the mark behind which payload begins. `None`: it has come, or this line has none.
pub(super) fn hear_mark(link: &mut Link, line: &mut Line, desk: &mut Desk, now: Instant) -> Result<Option<Got>, Fault> {
    let Some(marked) = line.marked.as_mut().filter(|marked| !marked.hears_payload()) else { return Ok(None) };
    let (answers, got) = marked.hear(link, desk, now)?;
    line.pulse.answered(answers, now);
    Ok(Some(got).filter(|_| !marked.hears_payload()))
}

/// Says the mark, if there is one to be said: payload is about to follow.
pub(super) fn begin_payload(link: &mut Link, line: &mut Line, desk: &mut Desk, now: Instant) -> Result<(), Fault> {
    line.marked.as_mut().map_or(Ok(()), |marked| marked.begin_payload(link, desk, now))
}

/// Goes on until there is payload, or nothing.
fn listen_to(link: &mut Link, line: &mut Line, desk: &mut Desk, now: Instant) -> Result<Heard, Fault> {
    if let Some(got) = hear_mark(link, line, desk, now)? {
        return Ok(Heard::Nothing(got));
    }
    let is_plain = link.is_plain();
    for _ in 0..GLANCES {
        let mut bytes = Vec::new();
        let got = link.receive(GLANCE, desk, now, |message| {
            let (payload, answers) = match wire::beats(message, BEATS_A_RECORD) {
                _ if line.marked.is_some() => (message, 0),
                _ if is_plain => sift(message, line.pulse.awaited()),
                0 => (message, 0),
                answers => (&[][..], answers),
            };
            line.pulse.answered(answers, now);
            bytes.extend_from_slice(payload);
        })?;
        if !bytes.is_empty() {
            return Ok(Heard::Payload(bytes));
        }
        if got != Got::Some {
            return Ok(Heard::Nothing(got));
        }
    }
    Ok(Heard::Nothing(Got::Some))
}
