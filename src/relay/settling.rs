//! Payload that comes from an agent too late: the end of an answer whose user is gone (docs/protocol.md, section 5).
//!
//! An agent in the field whose user leaves in the middle of an answer sends the rest into its next connection, right
//! behind `AUTHORIZED`. Whoever is joined to that one at once gets it. So an agent that sends payload while it is free
//! is joined when it has been quiet for a while, and one that comes soon after such a session is listened to first.

use super::Relay;
use super::pipe::Ends;
use crate::limits::{BURST, LEFTOVERS, SETTLE, SETTLE_PRIVATE};
use crate::net::reactor::Key;
use crate::net::session::Cause;
use std::time::Instant;

/// What is known of a joined agent's answer: when it came, for what it says is not looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// No user has asked for one: a private pipe, where what a new agent says first may be a message of its own.
    NotAsked,
    /// Nothing has come since the user last said something.
    Awaited,
    /// All that has come came in one burst, which began then.
    Burst(Instant),
    /// It has come over some time, the last of it then.
    Stream(Instant),
}

impl Answer {
    /// Some more of it has come.
    pub(super) fn add(&mut self, now: Instant) {
        *self = match *self {
            Self::NotAsked => Self::NotAsked,
            Self::Awaited => Self::Burst(now),
            Self::Burst(began) if now < began + BURST => Self::Burst(began),
            Self::Burst(_) | Self::Stream(_) => Self::Stream(now),
        }
    }

    /// The user has said some more.
    pub(super) fn ask_again(&mut self) {
        if !matches!(self, Self::NotAsked) {
            *self = Self::Awaited;
        }
    }

    /// The user has gone, and nobody can tell whether this was all of it.
    fn may_go_on(self, now: Instant, user_broke_off: bool) -> bool {
        match self {
            Self::NotAsked => false,
            Self::Burst(_) => user_broke_off,
            Self::Awaited => true,
            Self::Stream(last) => user_broke_off || now < last + SETTLE,
        }
    }
}

impl Relay {
    /// A session is about to end. If an agent of it may not be done, the rest may come with the next one.
    pub(super) fn note_leftovers(&mut self, key: Key, partner: Key, cause: &Cause) {
        let now = self.reactor.now;
        for (agent, peer) in [(key, partner), (partner, key)] {
            let (Some(source), Some(sink)) = (self.reactor.get(agent), self.reactor.get(peer)) else { return };
            // Frames say what belongs to whom.
            let Some(agent) = source.state.agent().filter(|agent| agent.framed.is_none()) else { continue };
            let place = agent.place;
            let has_more = source.link.may_read() || !sink.link.is_flushed();
            let may_have_more = agent.answer.may_go_on(now, cause.broken() == Some(peer));
            // One that has ended by itself has said all that it had to say.
            if (has_more || may_have_more) && !source.link.has_hung_up() {
                if let Some(agents) = self.mappings.agents(place) {
                    agents.leftovers = Some(now + LEFTOVERS);
                }
            }
        }
    }

    /// A new agent is listened to before it is joined, if there may be leftovers.
    pub(super) fn expect_leftovers(&mut self, key: Key) {
        let now = self.reactor.now;
        let agent = self.reactor.get(key).and_then(|it| it.state.agent()).filter(|agent| agent.framed.is_none());
        let Some(place) = agent.map(|agent| agent.place) else { return };
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
        let until = if is_private { (now + SETTLE).min(agent.since + SETTLE_PRIVATE) } else { now + SETTLE };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an answer may go on that came at these milliseconds, when the user leaves at the last of them.
    fn may_go_on(times: &[u64]) -> bool {
        let start = Instant::now();
        let at = |&time: &u64| start + std::time::Duration::from_millis(time);
        let (left, came) = times.split_last().unwrap();
        let mut answer = Answer::Awaited;
        came.iter().for_each(|time| answer.add(at(time)));
        answer.may_go_on(at(left), false)
    }

    #[test]
    fn an_answer_may_go_on_unless_it_came_at_once_or_has_stopped() {
        assert!(may_go_on(&[1000]), "nothing has come");
        assert!(!may_go_on(&[0, 1]) && !may_go_on(&[0, 1, 9, 10]));
        assert!(may_go_on(&[0, 100, 200, 400]));
        assert!(!may_go_on(&[0, 100, 200, 500]));
    }
}
