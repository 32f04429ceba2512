//! The agents' words (docs/protocol.md, section 4). Only constants and how they are recognised.

/// Answer to the right passcode.
pub const AUTHORIZED: &[u8] = b"AUTHORIZED";
/// A heartbeat, and the answer to it.
pub const BEAT: &[u8] = b"BEAT";

/// How many heartbeats a message is: n for n times `BEAT` and nothing else, 0 for payload.
pub fn beats(message: &[u8]) -> usize {
    if message.chunks(BEAT.len()).all(|word| word == BEAT) { message.len() / BEAT.len() } else { 0 }
}

/// Where a message must be cut so that an agent cannot take its first piece, or the rest, for a heartbeat.
///
/// The field's agent compares each read with `BEAT` and `BEATBEAT`. `None`: send it whole.
pub fn cut(message: &[u8]) -> Option<usize> {
    matches!(message, b"BEAT" | b"BEATBEAT").then_some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_beats_are_heartbeats() {
        assert_eq!(beats(b"BEAT"), 1);
        assert_eq!(beats(b"BEATBEATBEAT"), 3);
        for payload in [&b""[..], b"BEA", b"BEATB", b"xBEAT", b"BEAT\n", b"beat", b"BEATBEATxxxx"] {
            assert_eq!(beats(payload), 0, "{payload:?}");
        }
    }

    #[test]
    fn no_piece_of_a_cut_message_is_a_heartbeat() {
        for message in [&b"BEAT"[..], b"BEATBEAT"] {
            let (head, tail) = message.split_at(cut(message).unwrap());
            assert_eq!((beats(head), beats(tail)), (0, 0));
        }
        assert_eq!(cut(b"BEATS"), None);
    }
}
