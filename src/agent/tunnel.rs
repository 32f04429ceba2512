//! Both ends of a tunnel, up to its payload (see [`crate::wire::tunnel`]).

use super::Agent;
use super::service::Topic;
use super::state::{Line, Local, State, Task};
use crate::limits::{AUTHENTICATION, CALL, CALL_AGAIN, CALL_ANSWER};
use crate::net::buffers::IoContext;
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Key, SocketMut};
use crate::net::service::Service as _;
use crate::net::session::Cause;
use crate::net::words;
use crate::wire::tunnel::{BEGIN, CALLS, HERE, Word};
use std::time::Instant;

impl Agent {
    /// The listening end has a client and a line for it.
    pub(super) fn call(&mut self, key: Key, client: Key) {
        let now = self.reactor.now;
        let Some(line) = self.line_mut(key) else { return };
        let service = line.place.service;
        line.used = true;
        let is_framed = line.framed.is_some();
        let until = now + if is_framed { CALL_ANSWER } else { CALL };
        line.task = match is_framed {
            true => Task::Calling { local: client, until },
            false => Task::Opening { local: client, heard: Vec::new(), call_at: Some(now), until },
        };
        let joined = State::Local(Local { service, line: key, is_client: true, half_closed: None });
        if self.reactor.change(client, joined).is_some() {
            self.client_has_left(service);
        }
        self.reactor.wake_by(until);
        if is_framed {
            return self.ask_for_session(key, client);
        }
        self.call_again();
    }

    /// Repeats the calls that have not been answered.
    pub(super) fn call_again(&mut self) {
        let now = self.reactor.now;
        let calls = |line: &Line| matches!(line.task, Task::Opening { call_at: Some(_), .. });
        for key in self.reactor.keys(|socket| socket.state.line().is_some_and(calls)) {
            let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else {
                continue;
            };
            let Task::Opening { call_at: Some(at), .. } = &mut line.task else { continue };
            if *at <= now {
                *at = now + CALL_AGAIN;
                let sent = if link.is_flushed() { say(CALLS, link, line, ctx, now) } else { Ok(()) };
                if let Err(fault) = sent {
                    self.end(key, Cause::Failed(key, fault));
                    continue;
                }
            }
            self.reactor.wake_by(now + CALL_AGAIN);
        }
    }

    /// The exposing end has its service, and tells the other end.
    pub(super) fn answer_call(&mut self, key: Key, local: Key) -> Result<(), LinkError> {
        let now = self.reactor.now;
        let until = now + AUTHENTICATION;
        self.reactor.wake_by(until);
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else {
            return Ok(());
        };
        line.task = Task::Opening { local, heard: Vec::new(), call_at: None, until };
        say(HERE, link, line, ctx, now)
    }

    /// Waits for the word of the other end: `HERE` at the listening one, `BEGIN` at the exposing one.
    pub(super) fn open_tunnel(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return };
        let Task::Opening { local, call_at, .. } = &line.task else { return };
        let (local, listens) = (*local, call_at.is_some());
        let next = next_word(link, line, ctx, now);
        let wanted = matches!(next, Ok((_, Input::Starved))).then(|| link.record_want());
        match (next, listens) {
            (Ok((Some(Word::Here), _)), true) => {
                if let Err(fault) = link.send(BEGIN, ctx, now) {
                    return self.end(key, Cause::Failed(key, fault));
                }
            }
            (Ok((Some(Word::Begin), _)), false) => {}
            // A call was sent before our answer arrived. Or there is more than one turn takes.
            (Ok((Some(Word::Call), _)), false) | (Ok((None, Input::Data)), _) => return self.reactor.again(key),
            (Ok((Some(_), _)), _) => return self.not_a_tunnel(key),
            (Ok((None, Input::WouldBlock | Input::Starved)), _) => return self.reactor.wait_for_buffer(key, wanted),
            (Ok((None, Input::Eof)) | Err(_), _) => {
                return self.end(key, Cause::interrupted("the other end of the tunnel has left"));
            }
        }
        line.task = Task::Joined { local };
        self.join(key, local);
    }

    /// The other end does not speak as a tunnel's other end does.
    pub(super) fn not_a_tunnel(&mut self, key: Key) {
        self.warn(key, Topic::OtherEnd, "The other end is not an agent with --to; a connection is closed");
        self.end(key, Cause::interrupted("the other end is not an agent with --to"));
    }

    /// A client has waited for the other end in vain.
    pub(super) fn nobody_answers(&mut self, key: Key) {
        self.warn(key, Topic::OtherEnd, "The other end of the tunnel does not answer; a client is closed");
        self.end(key, Cause::interrupted("the other end of the tunnel does not answer"));
    }
}

/// Says a word to the other end. For the Connector it is payload.
fn say(word: &[u8], link: &mut Link, line: &mut Line, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
    if let Some(marked) = &mut line.marked {
        marked.begin_payload(link, ctx, now)?;
    }
    link.send(word, ctx, now)
}

/// The next word that is there. Reads nothing behind it. Answers to heartbeats are taken out.
fn next_word(
    link: &mut Link,
    line: &mut Line,
    ctx: &mut IoContext,
    now: Instant,
) -> Result<(Option<Word>, Input), LinkError> {
    if let Some(got) = line.hear_marker(link, ctx, now)? {
        return Ok((None, got));
    }
    let Task::Opening { heard, .. } = &mut line.task else { return Ok((None, Input::WouldBlock)) };
    let said = words::next_word(heard, link, ctx, now)?;
    line.pulse.answered(said.beats, now);
    Ok((said.word, said.got))
}
