//! Users of public pipes, up to their agent (docs/protocol.md, section 5).
//!
//! A user is joined to an agent when its first byte arrives, and not before: an idle or speculative connection
//! holds no agent. Until then its bytes stay in the kernel, so that no user costs a buffer. With `proxyprotocol` it is
//! joined when it has connected: the header that the agent gets stands for the first bytes. So it is where agents speak
//! in frames ([`super::frames`]): those are told of it. Behind a proxy that names no user, in a health check of its own,
//! say, it is joined at its first byte all the same.

use super::counters::{Port, Refused, WAITS};
use super::pipe::{Pipe, PipeKey, PipePort};
use super::settling::Answer;
use super::state::{Stage, State, User};
use super::{Relay, Topic};
use crate::limits::{FIRST_BYTE, WAIT_FOR_AGENT, WAITING_USERS};
use crate::net::link::Input;
use crate::net::pump::{Flow, send_payload};
use crate::net::reactor::{Close, Key, Socket, SocketMut};
use crate::net::service::Service;
use crate::net::session::{self, Cause, Party};
use crate::net::tcp;
use crate::network::Network;
use crate::plural::counted;
use crate::throttle::and_more;
use crate::wire::proxy_protocol::{self, Ends, Origin, Parsed};
use log::warn;
use std::time::Duration;

/// When half-closed sessions are looked at again for a user that waits: many users, one look.
pub(super) const SOON: Duration = Duration::from_millis(10);

impl Relay {
    /// Goes on with the handshake of a user, and looks for an agent once it has sent something.
    pub(super) fn seek_agent(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::User(user) }, ctx)) = self.reactor.get_mut(key) else { return };
        let pipe = user.pipe;
        if let Stage::Proxied { .. } = user.stage {
            return self.hear_proxy(key);
        }
        // A reset leaves what came before it to be read, but nobody who would wait for an answer.
        if link.is_reset() {
            return self.close_user(key);
        }
        // A health check takes no agent: it would end each of them, one after the other.
        let speaks_first = user.is_nobody || self.mappings.get(pipe).is_some_and(Pipe::users_speak_first);
        let asks = match link.handshake(ctx, now) {
            // Without TLS a FIN may be a half-close: it is still answered.
            Ok(true) if !speaks_first && (link.is_plain() || !link.has_hung_up()) => Ok(Input::Data),
            Ok(true) => link.waiting(ctx),
            Ok(false) => Ok(Input::WouldBlock),
            Err(e) => Err(e),
        };
        match asks {
            Ok(Input::Data) if self.has_too_many(key, pipe) => self.refuse_user(key, Refused::MaxUsers),
            Ok(Input::Data) => match self.agent_for(pipe) {
                Some(agent) if self.is_next(key, pipe) => self.try_pair(key, agent, pipe),
                _ => self.wait_for_agent(key),
            },
            // It is not trusted yet, and never waits for a buffer here.
            Ok(Input::WouldBlock | Input::Starved) => self.ask_no_more(key),
            Ok(Input::Eof) => self.close_user(key),
            Err(fault) => {
                self.handshake_failed(key, Port::User, &fault);
                self.close_user(key);
            }
        }
    }

    /// Closes a user that gets no agent.
    pub(super) fn refuse_user(&mut self, key: Key, why: Refused) {
        self.counters.refused.add(why);
        self.close(key, Close::Now);
    }

    /// The proxy in front is to say where its user comes from, before anything else.
    fn hear_proxy(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::User(user) }, ctx)) = self.reactor.get_mut(key) else { return };
        let parsed = match link.peek(ctx) {
            Ok(None) => return,
            // It looked whether the port is open, most likely.
            Ok(Some([])) | Err(_) => return self.close(key, Close::Now),
            Ok(Some(bytes)) => proxy_protocol::parse(bytes),
        };
        let (proxy, pipe) = (link.peer, user.pipe);
        let Parsed::Header { ends, length } = parsed else {
            if parsed == Parsed::Invalid {
                self.refuse_proxy(key);
            }
            return;
        };
        if link.skip(length, ctx, now).is_err() {
            return self.close(key, Close::Now);
        }
        user.is_nobody = ends.is_none();
        user.called = ends.map(|ends| tcp::canonical(ends.to));
        link.peer = ends.map_or(proxy, |ends| tcp::canonical(ends.from));
        user.network = Network::of(link.peer.ip());
        let (link_peer, address) = (link.peer, link.peer.ip());
        if !self.is_allowed(pipe, link_peer) {
            return self.close(key, Close::Now);
        }
        let Some(users) = self.mappings.users(pipe) else { return };
        let ticket = users.silent.join(key, address);
        self.change_stage(key, Stage::Silent { ticket, until: now + FIRST_BYTE });
        self.reactor.again(key);
    }

    /// It has sent something else, or nothing for [`PROXY_HEADER`](crate::limits::PROXY_HEADER).
    pub(super) fn refuse_proxy(&mut self, key: Key) {
        let Some(Socket { link, state: State::User(User { pipe, .. }), .. }) = self.reactor.get(key) else { return };
        let (proxy, pipe) = (link.peer, *pipe);
        let Some(port) = self.mappings.users(pipe).map(|users| users.binding.port) else { return };
        if let Some(unsaid) = self.log.may_say(Topic::NoProxyHeader(port), self.reactor.now) {
            let more = and_more(unsaid);
            let place = self.mappings.place(PipePort { pipe, side: 1 });
            warn!("{place}: {proxy} is in `trustproxy` and began without a PROXY header, closed{more}");
        }
        self.refuse_user(key, Refused::NoProxyHeader);
    }

    /// As many from there have an agent as may. The log says so.
    ///
    /// Who sends no more may have left: without TLS its FIN does not tell. So for one more the one goes that has been
    /// half-closed longest without an answer.
    fn has_too_many(&mut self, key: Key, pipe: PipeKey) -> bool {
        let Some(socket) = self.reactor.get(key) else { return false };
        let State::User(User { network, .. }) = socket.state else { return false };
        let (network, peer) = (*network, socket.link.peer);
        let Some(most) = self.mappings.get(pipe).and_then(|pipe| pipe.options.max_users) else { return false };
        let Some(users) = self.mappings.users(pipe) else { return false };
        let (joined, port) = (users.joined_from(network), users.binding.port);
        if joined < usize::from(most) {
            return false;
        }
        let half_closed = self.reactor.iter().filter_map(|(key, socket)| match socket.state {
            State::User(user) if user.pipe == pipe && user.network == network => {
                Some((socket.state.half_closed_since()?, key))
            }
            _ => None,
        });
        if let Some((_, longest)) = half_closed.min() {
            self.end(longest, session::cause_of_silence(&self.reactor, longest));
            return false;
        }
        if let Some(unsaid) = self.log.may_say(Topic::TooManyUsers(port), self.reactor.now) {
            let (place, more) = (self.mappings.place(PipePort { pipe, side: 1 }), and_more(unsaid));
            let sessions = counted(most, "session");
            warn!("{place}: user {peer} refused, its address has {sessions} already (`maxusers`){more}");
        }
        true
    }

    /// What the agent is told of a user before anything else, if its mapping wants that.
    pub(super) fn proxy_header(&self, key: Key, pipe: PipeKey) -> Option<Vec<u8>> {
        let version = self.mappings.get(pipe)?.options.proxy_protocol?;
        let Socket { link, state: State::User(user), .. } = self.reactor.get(key)? else { return None };
        let ends = Ends { from: link.peer, to: user.called.or_else(|| link.local_addr())? };
        Some(Origin { ends, tls: link.tls_version(), server_name: link.server_name() }.header(version))
    }

    /// Joins a user that need not have said anything, since its agent is told of it first.
    fn introduce_user(&mut self, user: Key, agent: Key, pipe: PipeKey, header: &[u8]) {
        let now = self.reactor.now;
        self.pair(user, agent, pipe, 0);
        let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(agent) else { return };
        let marked = state.marked().map_or(Ok(()), |marked| marked.begin_payload(link, ctx, now));
        match marked.and_then(|()| send_payload(link, header, ctx, now)) {
            Ok(()) => self.relay(agent, user),
            Err(fault) => self.end(agent, Cause::Failed(agent, fault)),
        }
    }

    /// Nobody has waited longer. Who has is called, so that an agent that is free now finds its user.
    fn is_next(&mut self, key: Key, pipe: PipeKey) -> bool {
        match self.mappings.users(pipe).and_then(|users| users.next_waiting()) {
            Some(first) if first != key => {
                self.reactor.again(first);
                false
            }
            _ => true,
        }
    }

    /// The agent that has been free longest, if it may be sent something.
    fn agent_for(&mut self, pipe: PipeKey) -> Option<Key> {
        let agent = self.first_free(PipePort { pipe, side: 0 })?;
        if self.is_framed(agent) {
            return Some(agent);
        }
        let is_welcomed = self.reactor.get(agent)?.state.agent()?.welcome.is_none();
        is_welcomed.then_some(agent)
    }

    /// Hands the user's first bytes to the agent. Only if there were any are the two joined.
    fn try_pair(&mut self, user: Key, agent: Key, pipe: PipeKey) {
        if let Some((from, to, _)) = self.reactor.pair_mut(user, agent) {
            // Its agents may all be behind one address: it is the users that are many, and must not stop each other.
            to.link.hold_for(from.link.holds_for());
        }
        if self.is_framed(agent) {
            return self.open_session(user, agent, pipe);
        }
        if let Some(header) = self.proxy_header(user, pipe) {
            return self.introduce_user(user, agent, pipe, &header);
        }
        let pumped = session::forward(&mut self.reactor, user, agent);
        if pumped.payload > 0 {
            self.pair(user, agent, pipe, pumped.payload);
            return match pumped.flow {
                // What was taken is gone: no other user may follow it to this agent, and no other agent can have it.
                Flow::SourceFailed(fault) => self.end(user, Cause::Failed(user, fault)),
                Flow::SinkFailed(fault) => self.end(agent, Cause::Failed(agent, fault)),
                _ => self.relay(agent, user),
            };
        }
        match pumped.flow {
            Flow::Eof | Flow::SourceFailed(_) => self.close_user(user),
            // It has asked, so its place in the line is from now on, whatever kept it from this agent.
            Flow::Starved(_) => self.wait_for_agent(user),
            Flow::Again | Flow::Blocked => {
                self.wait_for_agent(user);
                self.reactor.again(user);
            }
            Flow::WouldBlock => self.ask_no_more(user),
            Flow::SinkFailed(fault) => {
                self.end(agent, Cause::Failed(agent, fault));
                self.wait_for_agent(user);
                self.reactor.again(user);
            }
        }
    }

    pub(super) fn pair(&mut self, user: Key, agent: Key, pipe: PipeKey, payload: u64) {
        self.reactor.wait_for_buffer(user, None);
        if let Some((socket, _)) = self.reactor.get_mut(user) {
            // The agent has been told, or is told nothing.
            socket.link.forget_server_name();
        }
        let (moved, received) = (self.reactor.now, payload);
        let waited = self.waited(user);
        let stage = Stage::Joined { agent, half_closed: None, moved, received };
        let Some(network) = self.change_stage(user, stage) else { return };
        if let Some(users) = self.mappings.users(pipe) {
            users.count_in(network);
        }
        self.join(agent, user);
        if let Some(agent) = self.reactor.get_mut(agent).and_then(|(socket, _)| socket.state.agent_mut()) {
            agent.answer = Answer::Awaited;
            agent.waited = waited.as_millis().try_into().unwrap_or(u32::MAX);
        }
        self.counters.waits.add(&WAITS, waited);
        self.counters.sessions += 1;
        session::begin(&mut self.reactor, [user, agent]);
        self.mappings.count(PipePort { pipe, side: 1 }, payload);
    }

    /// How long a user has waited for an agent.
    fn waited(&self, key: Key) -> Duration {
        match self.reactor.get(key).map(|socket| socket.state) {
            Some(State::User(User { stage: Stage::Waiting { since, .. }, .. })) => {
                self.reactor.now.saturating_duration_since(*since)
            }
            _ => Duration::ZERO,
        }
    }

    /// Gives back what belonged to the stage that a user leaves. Returns where it comes from.
    fn change_stage(&mut self, key: Key, stage: Stage) -> Option<Network> {
        let Some((SocketMut { state: State::User(user), .. }, _)) = self.reactor.get_mut(key) else { return None };
        let (pipe, network) = (user.pipe, user.network);
        let left = std::mem::replace(&mut user.stage, stage);
        self.user_left_stage(pipe, network, left);
        Some(network)
    }

    /// What a waiting user had sent was no payload (a key update, say): it is silent again, and the next may ask.
    fn ask_no_more(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let State::User(User { pipe, stage: Stage::Waiting { .. }, .. }) = socket.state else { return };
        let (address, until) = (socket.link.peer.ip(), self.reactor.now + FIRST_BYTE);
        let Some(users) = self.mappings.users(*pipe) else { return };
        let ticket = users.silent.join(key, address);
        self.change_stage(key, Stage::Silent { ticket, until });
    }

    fn wait_for_agent(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(socket) = self.reactor.get(key) else { return };
        let State::User(User { pipe, stage: Stage::Silent { .. }, .. }) = socket.state else { return };
        let (pipe, address) = (*pipe, socket.link.peer.ip());
        let Some(wait_time) = self.mappings.get(pipe).map(|pipe| pipe.options.wait_time()) else { return };
        let until = now + wait_time;
        let Some(users) = self.mappings.users(pipe) else { return };
        if let Some(other) = users.waiting.surplus(WAITING_USERS) {
            let port = users.binding.port;
            if let Some(unsaid) = self.log.may_say(Topic::NoAgent(port), now) {
                let (place, more) = (self.mappings.place(PipePort { pipe, side: 1 }), and_more(unsaid));
                let old = self.reactor.get(other).map_or_else(String::new, |socket| format!(", {},", socket.link.peer));
                warn!(
                    "{place}: {WAITING_USERS} users wait for an agent, an old one{old} is closed for a new one{more}"
                );
            }
            self.refuse_user(other, Refused::Evicted);
        }
        let Some(users) = self.mappings.users(pipe) else { return };
        let ticket = users.waiting.join(key, address);
        self.change_stage(key, Stage::Waiting { ticket, since: now, until });
        self.note_want(PipePort { pipe, side: 0 });
        self.reactor.wake_by(until);
        // Half-closed sessions have less patience from now on: see soon whether one of them makes room.
        self.reactor.wake_by(now + SOON);
    }

    /// It has waited long enough for an agent. One that is free is no good without a buffer: they are all in use, and it
    /// is those who hold them that have to go.
    pub(super) fn has_waited(&mut self, key: Key, pipe: PipeKey) {
        if self.agent_for(pipe).is_none() {
            return self.close_user(key);
        }
        let next = self.reactor.now + WAIT_FOR_AGENT;
        if let Some((SocketMut { state: State::User(User { stage: Stage::Waiting { until, .. }, .. }), .. }, _)) =
            self.reactor.get_mut(key)
        {
            *until = next;
            self.reactor.wake_by(next);
            self.reactor.again(key);
        }
    }

    /// Closes a user that has no agent.
    pub(super) fn close_user(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let State::User(User { pipe, stage: Stage::Waiting { .. }, .. }) = socket.state else {
            return self.close(key, Close::Now);
        };
        let (place, peer, now) = (PipePort { pipe: *pipe, side: 1 }, socket.link.peer, self.reactor.now);
        if let Some(port) = self.mappings.port(place) {
            if let Some(unsaid) = self.log.may_say(Topic::NoAgent(port), now) {
                let (place, more) = (self.mappings.place(place), and_more(unsaid));
                warn!("{place}: no agent was free for user {peer}{more}");
            }
        }
        self.refuse_user(key, Refused::NoAgent);
    }

    /// A user has left.
    pub(super) fn user_left(&mut self, User { pipe, network, stage, .. }: User) {
        self.user_left_stage(pipe, network, stage);
    }

    fn user_left_stage(&mut self, pipe: PipeKey, network: Network, stage: Stage) {
        let Some(users) = self.mappings.users(pipe) else { return };
        match stage {
            Stage::Proxied { ticket, .. } | Stage::Silent { ticket, .. } => users.silent.leave(ticket),
            Stage::Waiting { ticket, .. } => {
                users.waiting.leave(ticket);
                // There may be an agent that was offered to this one, or a second agent, for whom nobody was called.
                if let Some(next) = users.next_waiting() {
                    self.reactor.again(next);
                }
            }
            Stage::Joined { .. } => users.count_out(network),
        }
    }
}
