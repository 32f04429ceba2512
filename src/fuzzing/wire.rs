//! The agents' protocol both ways: what goes in as payload comes out, byte for byte, and every heartbeat is one.

use super::pieces;
use crate::wire::v1::{BEAT, BEATS_A_RECORD, DATA, Word, Words, beats, cut, sift};

/// What one side says.
enum Said<'b> {
    Beat,
    Payload(&'b [u8]),
}

pub fn body(bytes: &[u8]) {
    let said = script(bytes);
    over_records(&said);
    over_a_stream(&said);
    words_are_the_same_in_any_pieces(bytes);
    for awaited in 0..3 {
        sifting_takes_answers_and_nothing_else(bytes, awaited);
    }
}

/// What the bytes tell one side to say: a length before each message of payload, 0 for a heartbeat.
fn script(mut bytes: &[u8]) -> Vec<Said<'_>> {
    let mut said = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (message, rest) = rest.split_at(usize::from(length).min(rest.len()));
        said.push(if length == 0 { Said::Beat } else { Said::Payload(message) });
        bytes = rest;
    }
    said
}

/// All heartbeats, and all payload in order.
fn sum(said: &[Said]) -> (usize, Vec<u8>) {
    let mut sum = (0, Vec::new());
    for message in said {
        match message {
            Said::Beat => sum.0 += 1,
            Said::Payload(bytes) => sum.1.extend_from_slice(bytes),
        }
    }
    sum
}

/// Over TLS, as the pump sends and hears it.
fn over_records(said: &[Said]) {
    let mut heard = (0, Vec::new());
    let mut hear = |record: &[u8]| match beats(record, BEATS_A_RECORD) {
        0 => heard.1.extend_from_slice(record),
        count => heard.0 += count,
    };
    for message in said {
        match message {
            Said::Beat => hear(BEAT),
            Said::Payload(bytes) => {
                let (head, tail) = cut(bytes);
                for record in [head, tail] {
                    // As Core Networking reads it.
                    assert!(record != b"BEAT" && record != b"BEATBEAT", "{bytes:?}");
                    hear(record);
                }
            }
        }
    }
    assert_eq!(heard, sum(said));
}

/// In dev mode with marks: heartbeats, the mark, payload, cut anywhere.
fn over_a_stream(said: &[Said]) {
    let (count, payload) = sum(said);
    let stream = [&BEAT.repeat(count)[..], DATA, &payload].concat();
    let (words, rest) = words(pieces(&stream));
    let expected: Vec<Word> = std::iter::repeat_n(Word::Beat, count).chain([Word::Data]).collect();
    assert_eq!((words, rest), (expected, payload));
}

/// The words up to the mark, or to what is none, and what is behind them.
fn words<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Word>, Vec<u8>) {
    let (mut words, mut rest, mut all) = (Words::default(), Vec::new(), Vec::new());
    let mut is_over = false;
    for mut piece in pieces {
        while !is_over && !piece.is_empty() {
            assert!((1..=4).contains(&words.missing()));
            let (now, later) = piece.split_at(words.missing().min(piece.len()));
            piece = later;
            match words.take(now) {
                Ok(word) => all.extend(word),
                Err(_) => is_over = true,
            }
            is_over |= all.last() == Some(&Word::Data);
        }
        rest.extend_from_slice(piece);
    }
    (all, rest)
}

fn words_are_the_same_in_any_pieces(bytes: &[u8]) {
    assert_eq!(words(pieces(bytes)), words([bytes].into_iter()));
}

/// The agent, with a Connector that sets no marks.
fn sifting_takes_answers_and_nothing_else(message: &[u8], awaited: usize) {
    let (payload, answers) = sift(message, awaited);
    assert!(answers <= awaited);
    let around = |before| [&BEAT.repeat(before), payload, &BEAT.repeat(answers - before)].concat();
    assert!((0..=answers).any(|before| around(before) == message), "{message:?} became {payload:?}");
}
