//! The words by which the two ends of a tunnel find each other.

use super::pieces;
use crate::wire::tunnel::{Heard, Word, is_call, understand};

/// Bytes of a word.
const WORD: usize = 16;

pub fn body(bytes: &[u8]) {
    let at_once = words([bytes].into_iter());
    assert_eq!(words(pieces(bytes)), at_once);
    let calls = at_once.iter().take_while(|(word, _)| *word == Word::Call).count();
    if is_call(bytes) {
        assert_eq!(calls * WORD, bytes.len());
    }
}

/// The words that come, each with where it ends. As an agent does, no more is taken than a word may be long.
fn words<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(Word, usize)> {
    let (mut words, mut heard, mut taken) = (Vec::new(), Vec::new(), 0);
    for mut piece in pieces {
        loop {
            match understand(&heard) {
                Heard::Beat => drop(heard.drain(..4)),
                Heard::Word(word) => {
                    assert_eq!(heard.len(), WORD, "something behind {word:?} was taken for a part of it");
                    words.push((word, taken));
                    heard.clear();
                }
                Heard::Part { missing } => {
                    assert!((1..=WORD).contains(&missing) && heard.len() + missing <= WORD);
                    let (now, later) = piece.split_at(missing.min(piece.len()));
                    if now.is_empty() {
                        break;
                    }
                    heard.extend_from_slice(now);
                    (piece, taken) = (later, taken + now.len());
                }
                Heard::Other => return words,
            }
        }
    }
    words
}
