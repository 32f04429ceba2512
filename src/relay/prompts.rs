//! Heartbeats of our own accord, to agents that hear nothing (docs/protocol.md, section 4).
//!
//! Core Networking closes a connection on which it has heard nothing for 60 s. Its own heartbeat queues behind its own
//! payload, so while a slow user holds that back it is neither heard nor answered, and the download would be cut.

use super::Relay;
use super::state::State;
use crate::limits::{PROMPT, WELCOME};
use crate::net::reactor::{Key, Socket};
use crate::net::wire::BEAT;

impl Relay {
    /// A joined agent's payload has to wait for its reader.
    pub(super) fn note_held_back(&mut self, key: Key) {
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            if let State::Joined { agent, .. } = &mut socket.state {
                agent.held_back = true;
            }
        }
    }

    /// Once a second: sends the heartbeats that are due.
    pub(super) fn prompt_agents(&mut self) {
        let due = self.reactor.iter().filter(|(_, socket)| self.prompt_is_due(socket)).map(|(key, _)| key);
        for key in due.collect::<Vec<Key>>() {
            self.prompt(key);
        }
    }

    fn prompt_is_due(&self, Socket { link, state, .. }: &Socket<State>) -> bool {
        let State::Joined { agent, .. } = state else { return false };
        // One that marks where payload begins does not wait for heartbeats behind its mark.
        if agent.marked.is_some() || !link.is_flushed() || !link.can_send(&self.reactor.desk.pool) {
            return false;
        }
        let due = |since| self.reactor.now >= since + PROMPT;
        if link.is_plain() {
            // Behind payload that it has not read yet it would be payload.
            due(link.told) && link.unsent() == 0
        } else {
            due(link.told) || (agent.held_back && due(agent.beaten))
        }
    }

    fn prompt(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Joined { agent, .. } = &mut socket.state else { return };
        let before = agent.told(&socket.link);
        if let Err(fault) = socket.link.send(BEAT, desk, now) {
            return self.abort(key, &fault);
        }
        agent.prompted = Some((now, before));
        agent.beaten = now;
        agent.held_back = false;
        if socket.link.is_plain() {
            // It must be read by itself, as AUTHORIZED must.
            agent.welcome = Some(now + WELCOME);
            self.reactor.wake_by(now + WELCOME);
        }
    }
}
