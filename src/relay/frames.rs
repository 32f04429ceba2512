//! Agents that speak in frames (docs/protocol.md, section 10): one session after the other on one connection.
//!
//! A user is joined to one as soon as it has connected. When the session is over, and the agent has confirmed that, the
//! connection is free again. When the last free one is taken, the agent is asked for more.

use super::Relay;
use super::pipe::{Ends, PipeKey, PipePort};
use super::state::{Duty, State};
use crate::limits::RESET_ANSWER;
use crate::net::closing::Ending;
use crate::net::framed::Framed;
use crate::net::link::{Input, LinkError};
use crate::net::reactor::{Close, Key, SocketMut};
use crate::net::service::Service;
use crate::net::session::{self, Cause, Interruption, Party};
use crate::wire::proxy_protocol;
use crate::wire::v2::channel::Role;
use crate::wire::v2::frame::Reason;
use crate::wire::v2::hello::{self, Hello, Parsed};
use crate::wire::v2::open::Open;

impl Relay {
    /// What the agent has said of itself behind its passcode, in the same message. `None`: it speaks version 1.
    pub(super) fn take_hello(&mut self, key: Key) -> Option<Hello> {
        let now = self.reactor.now;
        let (SocketMut { link, state: State::Unauthenticated(it) }, ctx) = self.reactor.get_mut(key)? else {
            return None;
        };
        if !link.is_plain() {
            let Parsed::Hello(hello) = hello::parse(&it.offer.behind) else { return None };
            (it.offer.behind.len() == hello::LENGTH).then(|| it.offer.behind.clear())?;
            return Some(hello);
        }
        if it.offer.has_preamble {
            return None;
        }
        let Parsed::Hello(hello) = hello::parse(link.peek(ctx).ok()??) else { return None };
        link.skip(hello::LENGTH, ctx, now).ok()?;
        Some(hello)
    }

    /// Agents may begin sessions at the port that it came to: at those of private pipes.
    pub(super) fn may_be_called(&self, key: Key) -> bool {
        self.reactor.get(key).and_then(|socket| socket.state.pipe()).is_some_and(|pipe| self.is_private(pipe))
    }

    fn is_private(&self, pipe: PipeKey) -> bool {
        self.mappings.get(pipe).is_some_and(|pipe| matches!(pipe.ends, Ends::Private(_)))
    }

    /// The other end of what an agent has said in its hello.
    pub(super) fn framed(hello: &Hello) -> Box<Framed> {
        let role = if hello.calls { Role::CalledConnector } else { Role::Connector };
        Box::new(Framed::new(role, hello))
    }

    /// It speaks in frames.
    pub(super) fn is_framed(&self, key: Key) -> bool {
        session::is_framed(&self.reactor, key)
    }

    /// Joins a user to an agent, and tells the agent of it.
    pub(super) fn open_session(&mut self, user: Key, agent: Key, pipe: PipeKey) {
        let (open, header) = (self.open_of(user), self.proxy_header(user, pipe));
        self.pair(user, agent, pipe, 0);
        if self.open_on(agent, &open, header.as_deref().unwrap_or_default()) {
            self.relay(agent, user);
        }
    }

    /// What an agent is told of a user.
    fn open_of(&self, user: Key) -> Open {
        let Some(socket) = self.reactor.get(user) else { return Open::default() };
        let State::User(user) = socket.state else { return Open::default() };
        let called = user.called.or_else(|| socket.link.local_addr());
        Open {
            ends: called.map(|to| proxy_protocol::Ends { from: socket.link.peer, to }),
            over_tls: !socket.link.is_plain(),
            tls: socket.link.tls_version(),
            server_name: socket.link.server_name().map(Box::from),
        }
    }

    /// Whether `key` goes on when its session ends for this reason.
    pub(super) fn outlives(&self, key: Key, cause: &Cause) -> bool {
        let is_over = matches!(cause, Cause::Interrupted(Interruption::Stopping | Interruption::Removed));
        self.is_framed(key) && !is_over && self.ending.is_none() && cause.broken() != Some(key)
    }

    /// The session of an agent is over. Its connection serves the next one. False: it has none, or is to be closed.
    pub(super) fn release_agent(&mut self, key: Key, ending: Ending, cause: &Cause) -> bool {
        let reason = match cause {
            // One of version 1 ends like this when it has sent everything, too.
            Cause::Ended(_) if self.may_be_called(key) => Reason::Ended,
            // The other side's own.
            Cause::Truncated(_, LinkError::Reset(reason)) => *reason,
            _ => cause.reason(),
        };
        self.outlives(key, cause) && self.release_framed(key, ending == Ending::Complete, reason)
    }

    /// The same. `complete`: it has been sent everything.
    pub(super) fn release_framed(&mut self, key: Key, complete: bool, reason: Reason) -> bool {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else {
            return false;
        };
        let (Duty::Joined(_) | Duty::Calling(_), Some(framed)) = (&agent.duty, &mut agent.framed) else { return false };
        framed.end(complete, reason);
        let sent = framed.send_due(link, ctx, now);
        let until = now + RESET_ANSWER;
        let left = std::mem::replace(&mut agent.duty, Duty::Released { until });
        if let Some(agents) = self.mappings.agents(agent.place) {
            left.leave(agents);
        }
        (agent.half_closed, agent.waited, agent.received, agent.held_back) = (None, 0, 0, false);
        self.reactor.wait_for_buffer(key, None);
        self.reactor.wake_by(until);
        match sent {
            Ok(()) => {
                // What has come already is looked at in a turn of its own.
                self.reactor.again(key);
                self.settle_released(key);
            }
            Err(fault) => self.end(key, Cause::Failed(key, fault)),
        }
        true
    }

    /// Listens to an agent that has not confirmed the end of its session.
    pub(super) fn read_released(&mut self, key: Key) {
        let Some((heard, _)) = session::listen(&mut self.reactor, key) else { return };
        match heard {
            Ok(Input::Data) => self.reactor.again(key),
            Ok(Input::WouldBlock | Input::Starved) => {}
            Ok(Input::Eof) => return self.end(key, Cause::Ended(key)),
            Err(fault) => return self.end(key, Cause::Failed(key, fault)),
        }
        self.settle_released(key);
    }

    /// An agent is free again, if it has confirmed the end of its session.
    fn settle_released(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return };
        let (Duty::Released { .. }, Some(framed)) = (&agent.duty, &agent.framed) else { return };
        // One that calls may have asked for the next one already.
        if !framed.is_free() && !framed.is_asked() {
            return;
        }
        let Some(agents) = self.mappings.agents(agent.place) else { return self.close(key, Close::Now) };
        agent.duty = Duty::Free(agents.free.join(key));
        agent.since = now;
        if framed.is_leaving() && !framed.is_asked() { self.dismiss(key) } else { self.offer(key) }
    }

    /// A free agent has said that it will not use the connection again.
    pub(super) fn dismiss(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(key) else { return };
        if let Some(framed) = state.framed_mut() {
            framed.bye();
            // If that cannot be said now, the end says it.
            let _ = framed.send_due(link, ctx, now);
        }
        self.end(key, Cause::Ended(key));
    }

    /// How many more connections an agent port is to ask for now.
    pub(super) fn wants(&mut self, place: PipePort) -> u16 {
        let now = self.reactor.now;
        let waiting = match self.mappings.users(place.pipe) {
            Some(users) => users.waiting.len(),
            None => self.mappings.agents(place.opposite()).map_or(0, |agents| agents.calling.len()),
        };
        let Some(agents) = self.mappings.agents(place) else { return 0 };
        // One more than there are users who need one: the next one does not wait.
        let needed = (waiting + 1).saturating_sub(agents.free.len());
        agents.want(needed, now)
    }

    /// The same where its agents begin the sessions: who comes next is known to them alone, so when all are in use they
    /// become twice as many.
    pub(super) fn wants_of_caller(&mut self, place: PipePort) -> u16 {
        let now = self.reactor.now;
        let Some(agents) = self.mappings.agents(place) else { return 0 };
        let needed = if agents.free.is_empty() { agents.authorized() } else { 0 };
        agents.want(needed, now)
    }

    /// Somebody waits for an agent of this port: once a turn its agents are asked for more connections.
    pub(super) fn note_want(&mut self, place: PipePort) {
        if !self.wanting.contains(&place) {
            self.wanting.push(place);
        }
    }

    /// Asks for the connections that have been wanted in this turn.
    pub(super) fn send_wants(&mut self) {
        let now = self.reactor.now;
        for place in std::mem::take(&mut self.wanting) {
            let Some(key) = self.whom_to_ask(place) else { continue };
            let wants = self.wants(place);
            let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(key) else { continue };
            let Some(framed) = state.framed_mut().filter(|_| wants > 0) else { continue };
            framed.want(wants);
            if let Err(fault) = framed.send_due(link, ctx, now) {
                self.end(key, Cause::Failed(key, fault));
            }
        }
    }

    /// An agent of this port that serves and speaks in frames: the one that was told of a user last, if it is still there.
    fn whom_to_ask(&mut self, place: PipePort) -> Option<Key> {
        let agents = self.mappings.agents(place).filter(|agents| agents.has_framed())?;
        let asked = agents.wanted.asked;
        let is_one = |state: &State| state.agent().is_some_and(|it| it.place == place && it.serves());
        let key = asked.filter(|&key| self.reactor.get(key).is_some_and(|socket| is_one(socket.state)));
        let key = key.or_else(|| self.reactor.iter().find(|(_, socket)| is_one(socket.state)).map(|(key, _)| key));
        self.mappings.agents(place)?.wanted.asked = key;
        key
    }
}
