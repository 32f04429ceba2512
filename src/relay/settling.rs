//! Payload that comes from an agent too late: the end of an answer whose user is gone (docs/protocol.md, section 5).
//!
//! An agent in the field whose user leaves in the middle of an answer sends the rest into its next connection, right
//! behind `AUTHORIZED`. Whoever is joined to that one at once gets it. So an agent that sends payload while it is free
//! is joined when it has been quiet for a while, and one that comes right after such a session is listened to first.

use super::Relay;
use super::pipe::Ends;
use crate::limits::{LEFTOVERS, SETTLE, SETTLE_PRIVATE};
use crate::net::reactor::Key;

impl Relay {
    /// A session is about to end. If an agent's payload was still on its way, the rest may come with the next agent.
    pub(super) fn note_leftovers(&mut self, key: Key, partner: Key) {
        let now = self.reactor.now;
        for (agent, peer) in [(key, partner), (partner, key)] {
            let (Some(source), Some(sink)) = (self.reactor.get(agent), self.reactor.get(peer)) else { return };
            let Some(place) = source.state.agent().map(|agent| agent.place) else { continue };
            let has_more = source.link.may_read() || !sink.link.is_flushed();
            // One that has ended by itself has said all that it had to say.
            if has_more && !source.link.has_hung_up() {
                if let Some(agents) = self.mappings.agents(place) {
                    agents.leftovers = Some(now + LEFTOVERS);
                }
            }
        }
    }

    /// A new agent is listened to before it is joined, if there may be leftovers.
    pub(super) fn expect_leftovers(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(place) = self.reactor.get(key).and_then(|it| it.state.agent()).map(|agent| agent.place) else {
            return;
        };
        if self.mappings.agents(place).is_some_and(|agents| agents.leftovers.is_some_and(|until| now < until)) {
            self.hold(key);
        }
    }

    /// A free agent has sent payload.
    pub(super) fn unsettle(&mut self, key: Key) {
        let Some(agent) = self.reactor.get_mut(key).and_then(|(socket, _)| socket.state.agent_mut()) else { return };
        let (place, is_first) = (agent.place, !std::mem::replace(&mut agent.has_unsettled, true));
        if let Some(pipe) = self.mappings.get_mut(place.pipe) {
            pipe.traffic.unsettled += u64::from(is_first);
        }
        self.hold(key);
    }

    /// Joins nobody to a free agent before it has been quiet.
    fn hold(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(agent) = self.reactor.get_mut(key).and_then(|(socket, _)| socket.state.agent_mut()) else { return };
        let is_private = self.mappings.get(agent.place.pipe).is_some_and(|pipe| matches!(pipe.ends, Ends::Private(_)));
        let until = if is_private { (now + SETTLE).min(agent.born + SETTLE_PRIVATE) } else { now + SETTLE };
        if until > now {
            agent.unsettled = Some(until);
            self.reactor.wake_by(until);
        }
    }

    /// It has been quiet for long enough, or is not to be waited for any longer.
    pub(super) fn settle(&mut self, key: Key) {
        if self.reactor.get(key).is_some_and(|socket| socket.link.may_read()) {
            // What has come meanwhile is looked at first.
            self.hold(key);
            self.reactor.again(key);
        }
        let now = self.reactor.now;
        let Some(agent) = self.reactor.get_mut(key).and_then(|(socket, _)| socket.state.agent_mut()) else { return };
        if agent.unsettled.is_some_and(|until| until <= now) {
            agent.unsettled = None;
            self.offer(key);
        }
    }
}
