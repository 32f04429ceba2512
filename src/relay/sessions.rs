//! What is counted and logged of sessions and of agents' connections when they end, and of handshakes that fail.
//!
//! A session is one line of the access log, and the same at level debug. The line is built when the session ends: while
//! it lasts only its bytes are counted.

use super::counters::{DURATIONS, Ended, Lost, Port};
use super::pipe::{PipeKey, PipePort};
use super::state::{Stage, State, User};
use super::{Relay, Topic};
use crate::logging::{AccessLog, Field, text};
use crate::net::link::LinkError;
use crate::net::reactor::Key;
use crate::net::session::{Cause, End, Interruption, Party, STOPPING};
use crate::throttle::and_more;
use log::{Level, debug, info, log, log_enabled};
use std::fmt::Display;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// One side of a session.
struct Side {
    /// `agent`, or `user`, or, of a private mapping's port2, `agent2`.
    role: &'static str,
    peer: SocketAddr,
    received: u64,
    tls: Option<&'static str>,
}

/// What is known of a session at its end.
struct Record {
    /// Of port1 and of port2.
    sides: [Side; 2],
    duration: Duration,
    /// `None`: nobody waits at a private mapping.
    waited: Option<Duration>,
    ended: Ended,
    /// Whose doing it was.
    by: Option<&'static str>,
}

impl Relay {
    /// Counts and logs the end of `key`, and of the session with `partner`.
    pub(super) fn record_end(&mut self, key: Key, partner: Option<Key>, cause: &Cause) {
        let ended = self.ended(cause);
        let Some(partner) = partner else { return self.agent_leaves(key, ended.into(), cause) };
        let Some((pipe, record)) = self.record(key, partner, ended, cause) else { return };
        self.counters.ended.add(ended);
        self.counters.durations.add(&DURATIONS, record.duration);
        self.write_record(pipe, &record, cause);
        for key in [key, partner] {
            self.agent_leaves(key, Lost::Session, cause);
        }
    }

    /// What is still there when the daemon ends.
    pub(super) fn record_unfinished(&mut self) {
        // Of two joined agents the one at port1 stands for both.
        let is_first = |state: &State| state.agent().is_some_and(|it| state.partner().is_none() || it.place.side == 0);
        for key in self.reactor.keys(|socket| is_first(socket.state)) {
            let partner = self.reactor.get(key).and_then(|socket| socket.state.partner());
            self.record_end(key, partner, &STOPPING);
        }
        self.setup.access_log.iter_mut().for_each(AccessLog::hand_over);
    }

    fn record(&self, one: Key, other: Key, ended: Ended, cause: &Cause) -> Option<(PipeKey, Record)> {
        let (one_place, one_side) = self.side(one)?;
        let (_, other_side) = self.side(other)?;
        let by = cause.by().map(|by| if by == one { one_side.role } else { other_side.role });
        let is_first = one_place.side == 0;
        let sides = if is_first { [one_side, other_side] } else { [other_side, one_side] };
        let first = self.reactor.get(if is_first { one } else { other })?.state.agent()?;
        let duration = self.reactor.now.saturating_duration_since(first.since);
        let waited = (sides[1].role == "user").then_some(Duration::from_millis(first.waited.into()));
        Some((one_place.pipe, Record { sides, duration, waited, ended, by }))
    }

    fn side(&self, key: Key) -> Option<(PipePort, Side)> {
        let socket = self.reactor.get(key)?;
        let (place, role, received) = match socket.state {
            State::Agent(agent) if agent.place.side == 0 => (agent.place, "agent", agent.received),
            State::Agent(agent) => (agent.place, "agent2", agent.received),
            State::User(User { pipe, stage: Stage::Joined { received, .. }, .. }) => {
                (PipePort { pipe: *pipe, side: 1 }, "user", *received)
            }
            _ => return None,
        };
        Some((place, Side { role, peer: socket.link.peer, received, tls: socket.link.tls_version() }))
    }

    fn write_record(&mut self, pipe: PipeKey, record: &Record, cause: &Cause) {
        let debugs = log_enabled!(Level::Debug);
        if !debugs && self.setup.access_log.is_none() {
            return;
        }
        let Some(pipe) = self.mappings.get(pipe) else { return };
        if debugs {
            let facts = text(record.fields().into_iter().skip(2));
            let [one, two] = &record.sides;
            let by = record.by.map(|by| format!("{by}: ")).unwrap_or_default();
            debug!(
                "{}: the session of {} {} and {} {} has ended, {by}{cause};{facts}",
                pipe.name(),
                one.role,
                one.peer,
                two.role,
                two.peer,
            );
        }
        let Some(access_log) = &mut self.setup.access_log else { return };
        let about = [("mapping", Field::Word(&pipe.id)), ("name", pipe.options.name.as_deref().into())];
        access_log.write(about.into_iter().chain(record.fields()));
    }

    /// An authorized agent is about to be closed.
    fn agent_leaves(&mut self, key: Key, lost: Lost, cause: &Cause) {
        let Some(socket) = self.reactor.get(key) else { return };
        let Some(agent) = socket.state.agent() else { return };
        if lost == Lost::Session && self.outlives(key, cause) {
            return;
        }
        let (place, peer) = (agent.place, socket.link.peer);
        self.counters.agents_lost.add(lost);
        let is_last = self.mappings.agents(place).is_some_and(|agents| agents.authorized() == 1);
        let is_expected = matches!(cause, Cause::Interrupted(Interruption::Stopping | Interruption::Removed));
        let Some(port) = self.mappings.port(place).filter(|_| is_last && !is_expected) else { return };
        if let Some(unsaid) = self.log.may_say(Topic::LastAgent(port), self.reactor.now) {
            let why: &dyn Display = if lost == Lost::Session { &"its session has ended" } else { cause };
            let place = self.mappings.place(place);
            info!("{place}: the last agent, {peer}, is gone: {why}{}", and_more(unsaid));
        }
    }

    /// A TLS handshake has failed; anything else has not.
    pub(super) fn handshake_failed(&mut self, key: Key, port: Port, fault: &LinkError) {
        let has_left = match fault {
            LinkError::Io(e) => matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            LinkError::Tls(_) => false,
            LinkError::Truncated | LinkError::Reset(_) => true,
        };
        // Who only looks whether the port is open (load balancers do) leaves like that.
        let why: &dyn Display = if has_left { &"it closed the connection" } else { fault };
        self.log_handshake(key, port, has_left, why);
    }

    /// Its time is over. If that was the time for its TLS handshake, that has failed.
    pub(super) fn handshake_is_late(&mut self, key: Key, port: Port) {
        self.log_handshake(key, port, false, &"it was not complete in time");
    }

    fn log_handshake(&mut self, key: Key, port: Port, has_left: bool, why: &dyn Display) {
        let now = self.reactor.now;
        let Some(socket) = self.reactor.get(key).filter(|socket| !socket.link.is_open()) else { return };
        let (peer, place) = (socket.link.peer, place_of(socket.state));
        self.counters.handshake_failures.add(port);
        let number = match place {
            Some(place) => self.mappings.port(place).unwrap_or_default(),
            None => self.setup.api_port,
        };
        let (topic, level) = match has_left {
            true => (Topic::Left(number), Level::Debug),
            false => (Topic::Handshake(number), Level::Info),
        };
        if let Some(unsaid) = self.log.may_say(topic, now) {
            let place = place.map_or_else(|| format!("API, port {number}"), |place| self.mappings.place(place));
            log!(level, "{place}: TLS handshake of {} {peer} failed, {why}{}", whose(port), and_more(unsaid));
        }
    }

    fn ended(&self, cause: &Cause) -> Ended {
        match cause.end() {
            End::Side(key) => {
                let is_user = self.reactor.get(key).is_some_and(|socket| matches!(socket.state, State::User(_)));
                if is_user { Ended::User } else { Ended::Agent }
            }
            End::Reset => Ended::Reset,
            End::Truncated => Ended::Truncated,
            End::Absence => Ended::Absence,
            End::Timeout => Ended::Timeout,
            End::Idle => Ended::Idle,
            End::Shortage => Ended::Shortage,
            End::Removed => Ended::Removed,
            End::Stop => Ended::Stop,
            End::Error => Ended::Error,
        }
    }
}

fn place_of(state: &State) -> Option<PipePort> {
    match state {
        State::Unauthenticated(it) => Some(it.place),
        State::User(user) => Some(PipePort { pipe: user.pipe, side: 1 }),
        _ => None,
    }
}

fn whose(port: Port) -> &'static str {
    match port {
        Port::Agent => "agent",
        Port::User => "user",
        Port::Api => "client",
    }
}

impl Record {
    /// In the order of the line. The two addresses come first.
    fn fields(&self) -> [(&'static str, Field<'_>); 10] {
        let [one, two] = &self.sides;
        [
            (one.role, Field::Address(one.peer)),
            (two.role, Field::Address(two.peer)),
            ("bytesport1", Field::Bytes(one.received)),
            ("bytesport2", Field::Bytes(two.received)),
            ("duration", Field::Seconds(self.duration)),
            ("waited", self.waited.map_or(Field::Absent, Field::Seconds)),
            ("tlsport1", one.tls.into()),
            ("tlsport2", two.tls.into()),
            ("ended", Field::Word(self.ended.word())),
            ("by", self.by.into()),
        ]
    }
}
