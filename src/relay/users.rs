//! Users of public pipes, up to their agent (docs/protocol.md, section 5).
//!
//! A user is joined to an agent when its first byte arrives, and not before: an idle or speculative connection
//! holds no agent. Until then its bytes stay in the kernel, so that no user costs a buffer.

use super::pipe::{PipeKey, Place, Users};
use super::session::Marks;
use super::settling::Answer;
use super::state::State;
use super::{Relay, Topic};
use crate::limits::{FIRST_BYTE, WAIT_FOR_AGENT, WAITING_USERS};
use crate::net::closing::Cause;
use crate::net::link::Got;
use crate::net::pump::{End, Fail, Failed, Pumped, Then, pump};
use crate::net::reactor::Key;
use crate::throttle::and_more;
use log::warn;
use std::time::Duration;

/// When half-closed sessions are looked at again for a user that waits: many users, one look.
const SOON: Duration = Duration::from_millis(10);

impl Relay {
    /// The user port of a public pipe, if the mapping is still open.
    pub(super) fn users(&mut self, pipe: PipeKey) -> Option<&mut Users> {
        self.pipes.get_mut(pipe)?.users()
    }

    /// Goes on with the handshake of a user, and looks for an agent once it has said something.
    pub(super) fn seek_agent(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let (State::Silent { pipe, .. } | State::Waiting { pipe, .. }) = socket.state else { return };
        // A reset leaves what came before it to be read, but nobody who would wait for an answer.
        if socket.link.is_reset() {
            return self.dismiss_user(key);
        }
        let asks = match socket.link.handshake(desk, now) {
            Ok(true) => socket.link.waiting(desk),
            Ok(false) => Ok(Got::Dry),
            Err(e) => Err(e),
        };
        match asks {
            Ok(Got::Some) => match self.agent_for(pipe) {
                Some(agent) if self.is_next(key, pipe) => self.try_join(key, agent, pipe),
                _ => self.wait_for_agent(key),
            },
            // It is not trusted yet, and never waits for a buffer here.
            Ok(Got::Dry | Got::Starved) => self.ask_no_more(key),
            Ok(Got::End) | Err(_) => self.dismiss_user(key),
        }
    }

    /// Nobody has waited longer. Who has is called, so that an agent that is free now finds its user.
    fn is_next(&mut self, key: Key, pipe: PipeKey) -> bool {
        match self.users(pipe).and_then(|users| users.next_waiting()) {
            Some(first) if first != key => {
                self.reactor.again(first);
                false
            }
            _ => true,
        }
    }

    /// The agent that has been free longest, if it may be sent something.
    fn agent_for(&mut self, pipe: PipeKey) -> Option<Key> {
        self.first_free(Place { pipe, side: 0 }).filter(|&agent| !self.is_being_welcomed(agent))
    }

    /// Hands the user's first bytes to the agent. Only if there were any are the two joined.
    fn try_join(&mut self, user: Key, agent: Key, pipe: PipeKey) {
        let now = self.reactor.now;
        match self.pass_marks(user, agent) {
            Ok(Marks::Passed) => {}
            Ok(_) => return,
            Err(Fail::Source(_)) => return self.dismiss_user(user),
            Err(Fail::Destination(fault)) => {
                self.abort(agent, &fault);
                return self.reactor.again(user);
            }
        }
        let Some((from, to, desk)) = self.reactor.pair_mut(user, agent) else { return };
        let to_end = to.state.end();
        // Its agents may all be behind one address: it is the users that are many, and must not stop each other.
        to.link.hold_for(from.link.holds_for());
        let pumped = pump((&mut from.link, End::Open), (&mut to.link, to_end), desk, now);
        match pumped {
            Ok(Pumped { payload: 0, then, .. }) => match then {
                Then::Ended => self.dismiss_user(user),
                // It has asked, so its place in the line is from now on, whatever kept it from this agent.
                Then::Starved(want) => {
                    self.wait_for_agent(user);
                    self.reactor.note_hunger(user, Some(want));
                }
                Then::Again | Then::Full => {
                    self.wait_for_agent(user);
                    self.reactor.again(user);
                }
                Then::Dry => self.ask_no_more(user),
            },
            Ok(Pumped { payload, .. }) => {
                self.marry(user, agent, pipe, payload);
                self.relay(agent, user);
            }
            Err(Failed { fail: Fail::Source(_), payload: 0 }) => self.dismiss_user(user),
            Err(Failed { fail: Fail::Destination(fault), payload: 0 }) => {
                self.abort(agent, &fault);
                self.wait_for_agent(user);
                self.reactor.again(user);
            }
            // What was taken is gone: no other user may follow it to this agent, and no other agent can have it.
            Err(Failed { fail, payload }) => {
                self.marry(user, agent, pipe, payload);
                let (broken, fault) = match fail {
                    Fail::Source(fault) => (user, fault),
                    Fail::Destination(fault) => (agent, fault),
                };
                self.part(agent, user, Cause::Broken(broken), Some(&fault));
            }
        }
    }

    fn marry(&mut self, user: Key, agent: Key, pipe: PipeKey, payload: u64) {
        self.reactor.note_hunger(user, None);
        self.leave_queue(user);
        self.set_state(user, State::Served { pipe, agent });
        if let Some((socket, _)) = self.reactor.get_mut(user) {
            socket.link.trust();
            socket.link.set_abortive(true);
        }
        self.join(agent, user);
        if let Some(agent) = self.reactor.get_mut(agent).and_then(|(socket, _)| socket.state.agent_mut()) {
            agent.answer = Answer::Awaited;
        }
        if let Some(pipe) = self.pipes.get_mut(pipe) {
            pipe.count(1, payload);
            if let Some(users) = pipe.users() {
                users.joined += 1;
            }
        }
    }

    /// What a waiting user had sent was no payload (a key update, say): it is silent again, and the next may ask.
    fn ask_no_more(&mut self, key: Key) {
        let waiting = |state: &State| matches!(state, State::Waiting { .. });
        let Some(State::Waiting { pipe, ticket, .. }) = self.take_state_if(key, waiting) else { return };
        let until = self.reactor.now + FIRST_BYTE;
        let Some(users) = self.users(pipe) else { return };
        users.waiting.leave(ticket);
        let next = users.next_waiting();
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer.ip()) else { return };
        let Some(users) = self.users(pipe) else { return };
        let ticket = users.silent.join(key, address);
        self.set_state(key, State::Silent { pipe, ticket, until });
        if let Some(next) = next {
            self.reactor.again(next);
        }
    }

    fn wait_for_agent(&mut self, key: Key) {
        let now = self.reactor.now;
        let silent = |state: &State| matches!(state, State::Silent { .. });
        let Some(State::Silent { pipe, ticket, .. }) = self.take_state_if(key, silent) else { return };
        let Some(users) = self.users(pipe) else { return };
        users.silent.leave(ticket);
        if let Some(other) = users.waiting.surplus(WAITING_USERS) {
            let port = users.door.port;
            if let Some(unsaid) = self.log.may_say(Topic::NoAgent(port), now) {
                let more = and_more(unsaid);
                warn!("Port {port}: {WAITING_USERS} users wait for an agent, an old one is closed for a new one{more}");
            }
            self.leave_queue(other);
            self.discard(other);
        }
        let until = now + WAIT_FOR_AGENT;
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer.ip()) else { return };
        let Some(users) = self.users(pipe) else { return };
        let ticket = users.waiting.join(key, address);
        self.set_state(key, State::Waiting { pipe, ticket, until });
        self.reactor.wake_by(until);
        // Half-closed sessions have less patience from now on: see soon whether one of them makes room.
        self.reactor.wake_by(now + SOON);
    }

    /// It has waited long enough for an agent. One that is free is no good without a buffer: they are all in use, and it
    /// is those who hold them that have to go.
    pub(super) fn has_waited(&mut self, key: Key, pipe: PipeKey) {
        if self.agent_for(pipe).is_none() {
            return self.dismiss_user(key);
        }
        let next = self.reactor.now + WAIT_FOR_AGENT;
        if let Some(State::Waiting { until, .. }) = self.reactor.get_mut(key).map(|(socket, _)| &mut socket.state) {
            *until = next;
            self.reactor.wake_by(next);
            self.reactor.again(key);
        }
    }

    /// Closes a user that has no agent.
    pub(super) fn dismiss_user(&mut self, key: Key) {
        let now = self.reactor.now;
        if let Some(State::Waiting { pipe, .. }) = self.reactor.get(key).map(|socket| &socket.state) {
            let pipe = *pipe;
            if let Some(port) = self.users(pipe).map(|users| users.door.port) {
                if let Some(unsaid) = self.log.may_say(Topic::NoAgent(port), now) {
                    warn!("Port {port}: no agent was free for a user{}", and_more(unsaid));
                }
            }
        }
        self.leave_queue(key);
        self.discard(key);
    }

    fn leave_queue(&mut self, key: Key) {
        match self.take_state(key) {
            Some(State::Silent { pipe, ticket, .. }) => {
                if let Some(users) = self.users(pipe) {
                    users.silent.leave(ticket);
                }
            }
            Some(State::Waiting { pipe, ticket, .. }) => {
                let Some(users) = self.users(pipe) else { return };
                users.waiting.leave(ticket);
                // There may be an agent that was offered to this one, or a second agent, for whom nobody was called.
                if let Some(next) = users.next_waiting() {
                    self.reactor.again(next);
                }
            }
            _ => {}
        }
    }
}
