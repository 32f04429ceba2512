//! The turn of an event loop, and how its connections end: the same for the daemon and the agent.

use super::closing::Ending;
use super::reactor::{Close, Entry, Key, Reactor, Socket, TICK};
use super::session::{self, Cause, Party, STOPPING};
use super::shortage;
use crate::throttle::{Throttle, and_more};
use log::warn;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What an event loop does with its connections.
pub(crate) trait Service {
    type State: Party;

    fn reactor(&self) -> &Reactor<Self::State>;
    fn reactor_mut(&mut self) -> &mut Reactor<Self::State>;

    /// Before the sleep: own sources that are to be looked at as if they had fired.
    fn pending(&mut self, _own: &mut Vec<usize>) {}
    /// The own source `number` has fired. True: once more, after the others.
    fn own_event(&mut self, number: usize) -> bool;
    /// A connection has its turn.
    fn ready(&mut self, key: Key);
    /// When [`Service::overdue`] is to be called.
    fn deadline(&self, socket: &Socket<'_, Self::State>) -> Option<Instant>;
    fn overdue(&mut self, key: Key);
    /// How long the agent of a half-closed session may be silent.
    fn patience(&self, state: &Self::State) -> Duration;
    /// All deadlines have been looked at.
    fn after_deadlines(&mut self) {}
    /// Once a second.
    fn tick(&mut self);
    /// The end of a turn. True: the loop is over.
    fn is_over(&mut self) -> bool;
    /// The loop is to end: what is in flight is delivered.
    fn is_stopping(&self) -> bool;
    /// `key` is about to end, and with it the session that it belongs to.
    fn ends(&mut self, _key: Key, _partner: Option<Key>, _cause: &Cause) {}
    /// Whose connection it is, for the log.
    fn describe(&self, _key: Key, peer: SocketAddr) -> String {
        peer.to_string()
    }
    /// The session on `key` ends, and the connection goes on: it speaks in frames. `ending`: what it is to conclude. False:
    /// it is closed.
    fn release(&mut self, _key: Key, _ending: Ending, _cause: &Cause) -> bool {
        false
    }
    /// A connection has left its state: what belongs to that is given back. It is closing, or gone.
    fn left(&mut self, state: Self::State);
    /// Payload has gone from `key` to its partner.
    fn count(&mut self, _key: Key, _payload: u64) {}
    /// What the log has said of sessions that were ended for want of buffers.
    fn shortages(&mut self) -> &mut Throttle;

    /// Closes a connection that is not closing yet.
    fn close(&mut self, key: Key, how: Close) {
        let reactor = self.reactor_mut();
        let Some(socket) = reactor.get(key) else { return };
        let group = socket.state.group();
        if let Some(state) = reactor.close(key, how, group) {
            self.left(state);
        }
    }

    /// Ends `key`, and the session that it belongs to; what was sent is delivered first.
    fn end(&mut self, key: Key, cause: Cause) {
        if let Some(socket) = self.reactor().get(key) {
            let partner = socket.state.partner();
            self.ends(key, partner, &cause);
        }
        let endings = session::endings(self.reactor(), key, &cause);
        // The next session may begin as soon as a connection is released: the others are closed before.
        let mut last = None;
        for (key, how) in endings.into_iter().flatten() {
            if last.is_none() && session::is_framed(self.reactor(), key) {
                last = Some((key, how));
            } else {
                self.close_or_release(key, how, &cause);
            }
        }
        if let Some((key, how)) = last {
            self.close_or_release(key, how, &cause);
        }
    }

    fn close_or_release(&mut self, key: Key, how: Close, cause: &Cause) {
        match how {
            Close::Drain(ending) if self.release(key, ending, cause) => {}
            _ => self.close(key, how),
        }
    }

    /// Moves what there is to move between two that are joined.
    fn relay(&mut self, one: Key, other: Key) {
        let stopping = self.is_stopping();
        let report = session::relay(self.reactor_mut(), one, other, stopping);
        for (key, payload) in [one, other].into_iter().zip(report.payload) {
            if payload > 0 {
                self.count(key, payload);
            }
        }
        if let Some(cause) = report.over {
            self.end(one, cause);
        }
    }
}

/// Serves until it is over. Errors: the system's, from poll.
pub(crate) fn run<S: Service>(service: &mut S) -> io::Result<()> {
    let mut own = Vec::new();
    let mut tick = Instant::now();
    // The first turn is due at once.
    service.reactor_mut().wake_by(tick);
    loop {
        service.pending(&mut own);
        service.reactor_mut().wait(&mut own)?;
        for number in std::mem::take(&mut own) {
            if service.own_event(number) {
                own.push(number);
            }
        }
        for _ in 0..service.reactor().queued() {
            let Some(key) = service.reactor_mut().next_ready() else { break };
            if !service.reactor_mut().close_further(key) {
                service.ready(key);
            }
        }
        let now = service.reactor().now;
        if service.reactor_mut().scan_is_due() | (now >= tick) {
            enforce_deadlines(service);
            service.after_deadlines();
        }
        if now >= tick {
            tick = now + TICK;
            end_stuck(service);
            service.reactor_mut().links_mut().for_each(|link| link.review_user_timeout(now));
            service.tick();
        }
        if service.is_over() {
            return Ok(());
        }
    }
}

/// Looks through all connections for those that have outstayed their state.
fn enforce_deadlines<S: Service>(service: &mut S) {
    let reactor = service.reactor();
    let now = reactor.now;
    let mut overdue = Vec::new();
    let mut next = now + TICK;
    for (key, entry) in reactor.entries() {
        let deadline = match &entry {
            Entry::Closing(link, closing) => Some(closing.deadline(link)),
            Entry::Active(socket) => deadlines(service, socket).into_iter().flatten().min(),
        };
        match deadline {
            Some(deadline) if deadline <= now => overdue.push(key),
            Some(deadline) => next = next.min(deadline),
            None => {}
        }
    }
    service.reactor_mut().wake_by(next);
    for key in overdue {
        if !service.reactor_mut().close_at_last(key) {
            is_overdue(service, key);
        }
    }
}

/// Of its session's delivery, of a half-closed session, and its state's own.
fn deadlines<S: Service>(service: &S, socket: &Socket<'_, S::State>) -> [Option<Instant>; 3] {
    [
        session::delivery_deadline(service.reactor(), socket),
        session::half_closed_deadline(socket, || service.patience(socket.state)),
        service.deadline(socket),
    ]
}

/// Unless it is no longer: the session that it was about may have been ended because of its other side, and the
/// connection be released from it.
fn is_overdue<S: Service>(service: &mut S, key: Key) {
    let now = service.reactor().now;
    let Some(socket) = service.reactor().get(key) else { return };
    let [delivery, half_closed, own] = deadlines(service, &socket).map(|it| it.is_some_and(|deadline| deadline <= now));
    if delivery {
        service.end(key, Cause::Undeliverable(key));
    } else if !half_closed {
        if own {
            service.overdue(key);
        }
    } else if session::half_closed_is_over(service.reactor(), key) {
        let cause = if service.is_stopping() { STOPPING } else { session::cause_of_silence(service.reactor(), key) };
        service.end(key, cause);
    }
}

/// All relay buffers are in use and somebody waits: those go that hold some without progress.
fn end_stuck<S: Service>(service: &mut S) {
    for (key, peer) in shortage::to_end(service.reactor()) {
        let now = service.reactor().now;
        if let Some(unsaid) = service.shortages().may_say(now) {
            let more = and_more(unsaid);
            let whose = service.describe(key, peer);
            warn!("All relay buffers are in use: the stalled connection of {whose} is closed{more}");
        }
        service.reactor_mut().abort_if_closing(key);
        service.end(key, Cause::Shortage(key));
    }
}
