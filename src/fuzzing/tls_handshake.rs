//! Arbitrary records before the handshake is done, among those of an honest peer, which come in any pieces.

use super::tls::{Ours, Peer, Shape, shake_hands};
use std::collections::VecDeque;

/// The first byte is the [`Shape`]; then come steps, each a byte and what belongs to it.
pub fn body(bytes: &[u8]) {
    let Some((&head, mut script)) = bytes.split_first() else { return };
    let shape = Shape::of(head);
    let (mut ours, mut peer) = (Ours::new(shape), Peer::new(shape, false));
    let mut flight = Flight::default();
    while let Some((&step, rest)) = script.split_first() {
        script = rest;
        match step % 10 {
            kind @ 0..=3 => {
                let (length, content) = cut(&mut script);
                let content = if length == u8::MAX { content.repeat(60) } else { content.to_vec() };
                ours.take(&mut record(20 + kind, &content));
            }
            4..=6 => {
                flight.add(&peer.records());
                if let Some(mut record) = flight.next(if step % 10 == 4 { usize::MAX } else { number(&mut script) }) {
                    ours.take(&mut record);
                }
            }
            7 => peer.hear(&ours.take_reply()),
            8 => {
                let mut raw = cut(&mut script).1.to_vec();
                ours.take(&mut raw);
            }
            _ if number(&mut script) % 8 == 0 => ours.close(),
            _ => ours.seal(b"too early, perhaps"),
        }
    }
    shake_hands(&mut ours, &mut peer);
    ours.take_reply();
}

/// What the honest peer has said and was not passed on yet: records.
#[derive(Default)]
struct Flight(VecDeque<Vec<u8>>);

impl Flight {
    fn add(&mut self, mut bytes: &[u8]) {
        while let Some(&[_, _, _, high, low]) = bytes.first_chunk() {
            let (record, rest) = bytes.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
            self.0.push_back(record.to_vec());
            bytes = rest;
        }
    }

    /// The next record; of one that is not encrypted only the first `most` bytes, as a record of its own.
    fn next(&mut self, most: usize) -> Option<Vec<u8>> {
        let next = self.0.pop_front()?;
        let (head, content) = next.split_at(5);
        if head[0] != 22 || most == 0 || most >= content.len() {
            return Some(next);
        }
        self.0.push_front(record(22, &content[most..]));
        Some(record(22, &content[..most]))
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], content].concat()
}

/// The next byte of the script.
fn number(script: &mut &[u8]) -> usize {
    let Some((&first, rest)) = script.split_first() else { return 0 };
    *script = rest;
    usize::from(first)
}

/// A length, and so many bytes of the script.
fn cut<'s>(script: &mut &'s [u8]) -> (u8, &'s [u8]) {
    let length = number(script);
    let (content, rest) = script.split_at(length.min(script.len()));
    *script = rest;
    (length as u8, content)
}
