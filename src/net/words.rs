//! The words of a tunnel on a link that speaks version 1 (docs/protocol.md, section 6), read one at a time.

use super::buffers::IoContext;
use super::link::{Input, Link, LinkError};
use crate::limits::MESSAGES_A_TURN;
use crate::wire::tunnel::{Heard, Word, understand};
use crate::wire::v1::BEAT;
use std::io::{Error, ErrorKind};
use std::time::Instant;

/// What the other end has said.
pub struct Said {
    pub word: Option<Word>,
    /// Heartbeats, or answers to some, that stood before it.
    pub beats: usize,
    pub got: Input,
}

/// The next word that is there. Reads nothing behind it. `heard`: what has come of it so far.
pub fn next_word(heard: &mut Vec<u8>, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<Said, LinkError> {
    let mut beats = 0;
    for _ in 0..MESSAGES_A_TURN {
        match understand(heard) {
            Heard::Beat => {
                heard.drain(..BEAT.len());
                beats += 1;
            }
            Heard::Word(word) => {
                heard.clear();
                return Ok(Said { word: Some(word), beats, got: Input::Data });
            }
            Heard::Part { missing } => {
                let got = link.receive(missing, ctx, now, |message| heard.extend_from_slice(message))?;
                if got != Input::Data {
                    return Ok(Said { word: None, beats, got });
                }
            }
            Heard::Other => return Err(Error::new(ErrorKind::InvalidData, "no word of a tunnel").into()),
        }
    }
    Ok(Said { word: None, beats, got: Input::Data })
}
