//! How the two ends of a tunnel find each other through a private pipe.
//!
//! The Connector throws payload away while the other side of a private pipe is absent, and tells nobody. So the
//! listening end says nothing of its client's before it knows that somebody listens:
//!
//! ```text
//! listening end                     exposing end
//! CALL, again every 500 ms   --->   (connects to its service)
//!                            <---   HERE
//! BEGIN                      --->
//! payload                    <-->   payload
//! ```
//!
//! A service that speaks first is served by this, too. The words are 16 bytes each; a user of a public pipe who says
//! them gets the same service as one who does not. Nothing follows BEGIN but payload: from there on it is a pipe.

use super::Agent;
use super::line::{begin_payload, hear_mark};
use super::state::{Line, State};
use crate::limits::{CALL, CALL_AGAIN, GREETING};
use crate::net::buffers::{Desk, Want};
use crate::net::closing::Cause;
use crate::net::link::{Fault, Got, Link};
use crate::net::reactor::Key;
use crate::net::wire::BEAT;
use crate::throttle::and_more;
use log::warn;
use std::io::{Error, ErrorKind};
use std::time::Instant;

/// Bytes of each word.
const LENGTH: usize = 16;
const CALLS: &[u8] = b"iofog/1 tunnel ?";
const HERE: &[u8] = b"iofog/1 tunnel !";
const BEGIN: &[u8] = b"iofog/1 tunnel >";

/// What one end of a tunnel says to the other before payload flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Call,
    Here,
    Begin,
}

/// Whether what a line heard first is the other end of a tunnel, which may have called several times.
pub(crate) fn is_call(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.chunks(LENGTH).all(|word| word == CALLS)
}

impl Agent {
    /// The listening end has a client and a line for it.
    pub(super) fn call(&mut self, key: Key, client: Key) {
        let now = self.reactor.now;
        let State::Free(mut line) = self.take_state(key) else { return };
        line.used = true;
        self.set_state(client, State::Local { line: key });
        let until = now + CALL;
        self.set_state(key, State::Calling { line, client, heard: Vec::new(), again: now, until });
        self.reactor.wake_by(until);
        self.call_again();
    }

    /// Repeats the calls that have not been answered.
    pub(super) fn call_again(&mut self) {
        let now = self.reactor.now;
        let calling = |state: &State| matches!(state, State::Calling { .. });
        let lines = self.reactor.iter().filter(|(_, socket)| calling(&socket.state)).map(|(key, _)| key);
        for key in lines.collect::<Vec<Key>>() {
            let Some((socket, desk)) = self.reactor.get_mut(key) else { continue };
            let State::Calling { again, .. } = &mut socket.state else { continue };
            if *again <= now {
                *again = now + CALL_AGAIN;
                let State::Calling { line, .. } = &mut socket.state else { continue };
                if socket.link.is_flushed() && say(CALLS, &mut socket.link, line, desk, now).is_err() {
                    self.end(key, Cause::Broken(key));
                    continue;
                }
            }
            self.reactor.wake_by(now + CALL_AGAIN);
        }
    }

    /// The listening end listens for the answer.
    pub(super) fn hear_service(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Calling { line, heard, .. } = &mut socket.state else { return };
        match next_word(&mut socket.link, line, heard, desk, now) {
            Ok(Next::Word(Word::Here)) => {}
            Ok(Next::Word(_)) => return self.not_a_tunnel(key),
            Ok(Next::Later(wanted)) => return self.reactor.note_hunger(key, wanted),
            Err(_) => return self.end(key, Cause::Interrupted),
        }
        if socket.link.send(BEGIN, desk, now).is_err() {
            return self.end(key, Cause::Broken(key));
        }
        let State::Calling { line, client, .. } = self.take_state(key) else { return };
        self.join(key, line, client);
    }

    /// The exposing end has its service, and tells the other end.
    pub(super) fn answer_call(&mut self, key: Key, line: Line, local: Key) -> Result<(), Fault> {
        let now = self.reactor.now;
        let until = now + GREETING;
        self.set_state(key, State::Answering { line, local, heard: Vec::new(), until });
        self.reactor.wake_by(until);
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(()) };
        let State::Answering { line, .. } = &mut socket.state else { return Ok(()) };
        say(HERE, &mut socket.link, line, desk, now)
    }

    /// The exposing end waits for the word behind which payload begins.
    pub(super) fn hear_client(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Answering { line, heard, .. } = &mut socket.state else { return };
        match next_word(&mut socket.link, line, heard, desk, now) {
            Ok(Next::Word(Word::Begin)) => {}
            // Said before our answer arrived.
            Ok(Next::Word(Word::Call)) => return self.reactor.again(key),
            Ok(Next::Word(Word::Here)) => return self.not_a_tunnel(key),
            Ok(Next::Later(wanted)) => return self.reactor.note_hunger(key, wanted),
            Err(_) => return self.end(key, Cause::Interrupted),
        }
        let State::Answering { line, local, .. } = self.take_state(key) else { return };
        self.join(key, line, local);
    }

    /// The other end does not speak as a tunnel's other end does.
    pub(super) fn not_a_tunnel(&mut self, key: Key) {
        if let Some(unsaid) = self.log.unanswered.may_say(self.reactor.now) {
            warn!("The other end is no agent with --to; a connection is closed{}", and_more(unsaid));
        }
        self.end(key, Cause::Interrupted);
    }

    /// A client has waited for the other end in vain.
    pub(super) fn nobody_answers(&mut self, key: Key) {
        if let Some(unsaid) = self.log.unanswered.may_say(self.reactor.now) {
            warn!("The other end of the tunnel does not answer; a client is turned away{}", and_more(unsaid));
        }
        self.end(key, Cause::Interrupted);
    }
}

/// Says a word to the other end. For the Connector it is payload.
fn say(word: &[u8], link: &mut Link, line: &mut Line, desk: &mut Desk, now: Instant) -> Result<(), Fault> {
    begin_payload(link, line, desk, now)?;
    link.send(word, desk, now)
}

/// What the bytes heard so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Word(Word),
    /// They begin with the answer to a heartbeat.
    Beat,
    /// The beginning of either; so many more bytes may be read without reading anything behind a word.
    Part {
        missing: usize,
    },
    /// Nothing that the other end of a tunnel says.
    Other,
}

pub(crate) fn understand(heard: &[u8]) -> Heard {
    let words = [(CALLS, Word::Call), (HERE, Word::Here), (BEGIN, Word::Begin)];
    if heard.starts_with(BEAT) {
        Heard::Beat
    } else if let Some((_, word)) = words.iter().find(|(text, _)| heard == *text) {
        Heard::Word(*word)
    } else if words.iter().any(|(text, _)| text.starts_with(heard)) || BEAT.starts_with(heard) {
        Heard::Part { missing: LENGTH - heard.len() }
    } else {
        Heard::Other
    }
}

/// What [`next_word`] has found.
enum Next {
    Word(Word),
    /// More must come; a buffer may be wanted for it.
    Later(Option<Want>),
}

/// The next word that is there. Reads nothing behind it. Answers to heartbeats are taken out.
fn next_word(
    link: &mut Link,
    line: &mut Line,
    heard: &mut Vec<u8>,
    desk: &mut Desk,
    now: Instant,
) -> Result<Next, Fault> {
    match hear_mark(link, line, desk, now)? {
        None => {}
        Some(Got::End) => return Err(Error::from(ErrorKind::UnexpectedEof).into()),
        Some(_) => return Ok(Next::Later(None)),
    }
    loop {
        match understand(heard) {
            Heard::Beat => {
                heard.drain(..BEAT.len());
                line.pulse.answered(1, now);
            }
            Heard::Word(word) => {
                heard.clear();
                return Ok(Next::Word(word));
            }
            Heard::Part { missing } => {
                match link.receive(missing, desk, now, |message| heard.extend_from_slice(message))? {
                    Got::Some => {}
                    Got::Dry => return Ok(Next::Later(None)),
                    Got::Starved => return Ok(Next::Later(Some(link.record_want()))),
                    Got::End => return Err(Error::from(ErrorKind::UnexpectedEof).into()),
                }
            }
            Heard::Other => return Err(Error::new(ErrorKind::InvalidData, "no word of a tunnel").into()),
        }
    }
}
