//! Dev mode between our own agent and our own daemon: a mark where payload begins, instead of records.
//!
//! Plain TCP keeps no boundaries, so a payload of `BEAT` cannot be told from a heartbeat by what one read gives. An
//! agent that began with the preamble, and its daemon, say heartbeats only until `DATA`, each in its own direction;
//! behind it every byte is payload (docs/protocol.md, section 4).

use super::buffers::IoContext;
use super::link::{Input, Link, LinkError};
use crate::limits::MESSAGES_A_TURN;
use crate::wire::v1::{DATA, Word, Words};
use std::io::{Error, ErrorKind};
use std::time::Instant;

/// How far both directions of such a connection have come.
#[derive(Debug, Default)]
pub struct Marked {
    /// What is heard before the mark. `None`: it has come.
    words: Option<Words>,
    sends_payload: bool,
}

impl Marked {
    pub fn new() -> Self {
        Self { words: Some(Words::default()), sends_payload: false }
    }

    /// The peer has said the mark: what comes now is payload.
    pub fn hears_payload(&self) -> bool {
        self.words.is_none()
    }

    /// We have said the mark: nothing but payload may follow.
    pub fn sends_payload(&self) -> bool {
        self.sends_payload
    }

    /// Heartbeats have come to an end in one direction at least, and with them what an absence could be told from.
    pub fn is_beyond_heartbeats(&self) -> bool {
        self.hears_payload() || self.sends_payload
    }

    /// Takes in heartbeats up to the mark and no byte behind it. Returns how many there were, and what is left:
    /// [`Input::Data`] means that there is more, of whatever kind.
    pub fn hear(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(usize, Input), LinkError> {
        let mut beats = 0;
        for _ in 0..MESSAGES_A_TURN {
            let Some(words) = &mut self.words else { break };
            let mut word = Ok(None);
            let got = link.receive(words.missing(), ctx, now, |bytes| word = words.take(bytes))?;
            match word {
                Ok(Some(Word::Beat)) => beats += 1,
                Ok(Some(Word::Data)) => self.words = None,
                Ok(None) => {}
                Err(_) => return Err(Error::new(ErrorKind::InvalidData, "neither BEAT nor DATA").into()),
            }
            if got != Input::Data {
                return Ok((beats, got));
            }
        }
        Ok((beats, Input::Data))
    }

    /// Says the mark, if it has not been said: payload is there, and follows in this turn.
    pub fn begin_payload(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if !self.sends_payload {
            link.send_ahead(DATA, ctx, now)?;
            self.sends_payload = true;
        }
        Ok(())
    }
}
