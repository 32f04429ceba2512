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

use super::v1::BEAT;

/// Bytes of each word.
const LENGTH: usize = 16;
pub const CALLS: &[u8] = b"iofog/1 tunnel ?";
pub const HERE: &[u8] = b"iofog/1 tunnel !";
pub const BEGIN: &[u8] = b"iofog/1 tunnel >";

/// What one end of a tunnel says to the other before payload flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Call,
    Here,
    Begin,
}

/// Whether what a line heard first is the other end of a tunnel, which may have called several times.
pub fn is_call(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.chunks(LENGTH).all(|word| word == CALLS)
}

/// What the bytes heard so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
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

pub fn understand(heard: &[u8]) -> Heard {
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
