//! The words of a tunnel (docs/protocol.md, section 6), said to an agent of version 1 whose partner speaks in frames.
//!
//! The partner needs no words: its OPEN, or the one that it gets, says the same.

use super::Relay;
use super::state::{Agent, Duty, State};
use crate::limits::CALL;
use crate::net::buffers::IoContext;
use crate::net::link::{Input, Link, LinkError};
use crate::net::pump::send_payload;
use crate::net::reactor::{Key, SocketMut};
use crate::net::service::Service;
use crate::net::session::{Cause, Party};
use crate::net::words;
use crate::wire::tunnel::{BEGIN, CALLS, HERE, Word};
use std::time::Instant;

impl Relay {
    /// Joins an agent that has called in frames to one of version 1, once that one has its service.
    pub(super) fn call_plain(&mut self, caller: Key, plain: Key) {
        self.begin_session([caller, plain]);
        self.say_word(plain, caller, CALLS);
    }

    /// An agent of version 1 has called and is joined to one that speaks in frames, and knows of the call.
    pub(super) fn answer_plain(&mut self, plain: Key, server: Key) {
        self.say_word(plain, server, HERE);
    }

    /// Says the first word, and waits for the answer.
    fn say_word(&mut self, key: Key, peer: Key, word: &[u8]) {
        let now = self.reactor.now;
        let until = now + CALL;
        self.reactor.wake_by(until);
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        agent.duty = Duty::Opening { peer, heard: Vec::new(), until };
        let marked = agent.marked.as_mut().map_or(Ok(()), |marked| marked.begin_payload(link, ctx, now));
        match marked.and_then(|()| send_payload(link, word, ctx, now)) {
            Ok(()) => self.reactor.again(key),
            Err(fault) => self.end(key, Cause::Failed(key, fault)),
        }
    }

    /// Waits for the word of an agent of version 1: `HERE` if its partner has called, else `BEGIN`.
    pub(super) fn hear_word(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        let Duty::Opening { peer, .. } = agent.duty else { return };
        let next = next_word(link, agent, ctx, now);
        let answered = agent.answer_beats(link, ctx, now);
        let wanted = matches!(next, Ok((_, Input::Starved))).then(|| link.record_want());
        let is_called = self.reactor.get(peer).is_some_and(|it| it.state.framed().is_some_and(|it| it.calls()));
        match (next.and_then(|next| answered.map(|()| next)), is_called) {
            (Ok((Some(Word::Here), _)), true) | (Ok((Some(Word::Begin), _)), false) => {
                self.words_are_said(key, peer, is_called);
            }
            // A call was sent before the answer to the first one arrived. Or there is more than one turn takes.
            (Ok((Some(Word::Call), _)), false) | (Ok((None, Input::Data)), _) => self.reactor.again(key),
            (Ok((Some(_), _)), _) => self.end(key, Cause::interrupted("it is not the end of a tunnel")),
            (Ok((None, Input::WouldBlock | Input::Starved)), _) => self.reactor.wait_for_buffer(key, wanted),
            (Ok((None, Input::Eof)), _) => self.end(key, Cause::Ended(key)),
            (Err(fault), _) => self.end(key, Cause::Failed(key, fault)),
        }
    }

    /// From here on all is payload.
    fn words_are_said(&mut self, key: Key, peer: Key, is_called: bool) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        agent.duty = Duty::Joined(peer);
        let sent = if is_called { send_payload(link, BEGIN, ctx, now) } else { Ok(()) };
        if let Err(fault) = sent {
            return self.end(key, Cause::Failed(key, fault));
        }
        if !is_called || self.answer(peer) {
            [key, peer].into_iter().for_each(|key| self.reactor.again(key));
        }
    }
}

/// The next word that is there. Reads nothing behind it. Heartbeats are taken out.
fn next_word(
    link: &mut Link,
    agent: &mut Agent,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<(Option<Word>, Input), LinkError> {
    if let Some(marked) = agent.marked.as_mut().filter(|marked| !marked.hears_payload()) {
        let (beats, got) = marked.hear(link, ctx, now)?;
        let is_open = marked.hears_payload();
        agent.owe(beats);
        if !is_open {
            return Ok((None, got));
        }
    }
    let Duty::Opening { heard, .. } = &mut agent.duty else { return Ok((None, Input::WouldBlock)) };
    let said = words::next_word(heard, link, ctx, now)?;
    agent.owe(said.beats);
    Ok((said.word, said.got))
}
