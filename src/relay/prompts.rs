//! Heartbeats of our own accord, to agents that hear nothing (docs/protocol.md, section 4).
//!
//! Core Networking closes a connection on which it has heard nothing for 60 s. Its own heartbeat queues behind its own
//! payload, so while a slow user holds that back it is neither heard nor answered, and the download would be cut.

use super::Relay;
use super::state::State;
use crate::limits::{PROMPT, WELCOME};
use crate::net::reactor::{Key, Socket, SocketMut};
use crate::net::service::Service;
use crate::net::session::Cause;
use crate::wire::v1::BEAT;

impl Relay {
    /// Once a second: sends the heartbeats that are due.
    pub(super) fn prompt_agents(&mut self) {
        for key in self.reactor.keys(|socket| self.prompt_is_due(socket)) {
            self.prompt(key);
        }
    }

    fn prompt_is_due(&self, Socket { link, state }: &Socket<'_, State>) -> bool {
        let Some(agent) = state.agent().filter(|agent| !agent.is_free()) else { return false };
        // One that speaks in frames hears from us when it asks. One that marks where payload begins does not wait for
        // heartbeats behind its mark.
        if agent.marked.is_some()
            || agent.framed.is_some()
            || !link.is_flushed()
            || !link.can_send(&self.reactor.ctx.pool)
        {
            return false;
        }
        let due = |since| self.reactor.now >= since + PROMPT;
        if link.is_plain() {
            // Behind payload that it has not read yet it would be payload.
            due(link.last_tx) && link.unsent() == 0
        } else {
            due(link.last_tx) || (agent.held_back && due(agent.beaten))
        }
    }

    fn prompt(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        let before = agent.last_tx(link);
        if let Err(fault) = link.send(BEAT, ctx, now) {
            return self.end(key, Cause::Failed(key, fault));
        }
        agent.prompted = Some((now, before));
        agent.beaten = now;
        agent.held_back = false;
        if link.is_plain() {
            // It must be read by itself, as AUTHORIZED must.
            agent.welcome = Some(now + WELCOME);
            self.reactor.wake_by(now + WELCOME);
        }
    }
}
