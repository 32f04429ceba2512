//! A peer that has finished its handshake, and then sends records of any content type and content.
//!
//! What it sends as application data comes out as it was, record for record.

use super::tls::{Ours, Peer, Shape, shake_hands};

/// RFC 8446, section 4.6.3, and those that rustls does not know.
const KEY_UPDATES: [&[u8]; 4] =
    [b"\x18\x00\x00\x01\x00", b"\x18\x00\x00\x01\x01", b"\x18\x00\x00\x01\x02", b"\x18\x00\x00\x02\x00\x00"];

/// The first byte is the [`Shape`]; then come steps, each a byte and what belongs to it.
pub fn body(bytes: &[u8]) {
    let Some((&head, mut script)) = bytes.split_first() else { return };
    let shape = Shape::of(head);
    let (mut ours, mut peer) = (Ours::new(shape), Peer::new(shape, true));
    shake_hands(&mut ours, &mut peer);
    assert!(ours.is_open(), "the handshake has failed");
    while let Some((&step, rest)) = script.split_first() {
        script = rest;
        match step % 12 {
            kind @ 0..=4 => send(&mut ours, &mut peer, 20 + kind, cut(&mut script)),
            5 => send(&mut ours, &mut peer, cut(&mut script).first().copied().unwrap_or(0), cut(&mut script)),
            6 => {
                let count = number(&mut script) % 8;
                let content: Vec<u8> =
                    (0..count).flat_map(|_| KEY_UPDATES[number(&mut script) % KEY_UPDATES.len()]).copied().collect();
                send(&mut ours, &mut peer, 22, &content);
            }
            7 => {
                peer.update_keys(number(&mut script) % 8);
                ours.take(&mut peer.records());
            }
            8 => {
                let content = cut(&mut script).repeat(1 + number(&mut script));
                let most = content.len().min(16_383);
                send(&mut ours, &mut peer, 20 + step % 5, &content[..most]);
            }
            9 => {
                // As it would come from somebody in between.
                let mut raw = cut(&mut script).to_vec();
                ours.take(&mut raw);
            }
            10 => {
                peer.send(23, cut(&mut script));
                let (at, mut records) = (number(&mut script), peer.records());
                if let Some(byte) = records.get_mut(at) {
                    *byte ^= 1;
                }
                ours.take(&mut records);
                ours.heard.clear();
            }
            _ if number(&mut script) % 8 == 0 => ours.close(),
            _ => ours.seal(cut(&mut script)),
        }
        if ours.reply.len() > 1024 {
            ours.take_reply();
        }
    }
    ours.seal(b"the last word");
    ours.close();
    ours.take_reply();
}

/// Sends one record, and sees that it comes out if it is application data.
fn send(ours: &mut Ours, peer: &mut Peer, kind: u8, content: &[u8]) {
    peer.send(kind, content);
    let (kind, content) = if peer.tls12() { (kind, content) } else { without_padding(kind, content) };
    ours.heard.clear();
    ours.take(&mut peer.records());
    let came: Vec<&[u8]> = ours.heard.iter().map(Vec::as_slice).collect();
    let expected: &[&[u8]] = if kind == 23 && !content.is_empty() && !ours.is_over() { &[content] } else { &[] };
    assert_eq!(came, expected, "a record of type {kind}");
}

/// What TLS 1.3 takes it for: zeroes at the end are padding, and the type is the last byte before them.
fn without_padding(kind: u8, content: &[u8]) -> (u8, &[u8]) {
    match (kind, content.iter().rposition(|&byte| byte != 0)) {
        (0, Some(last)) => (content[last], &content[..last]),
        _ => (kind, content),
    }
}

/// The next byte of the script.
fn number(script: &mut &[u8]) -> usize {
    let Some((&first, rest)) = script.split_first() else { return 0 };
    *script = rest;
    usize::from(first)
}

/// So many bytes of the script as its next byte says.
fn cut<'s>(script: &mut &'s [u8]) -> &'s [u8] {
    let length = number(script);
    let (content, rest) = script.split_at(length.min(script.len()));
    *script = rest;
    content
}
