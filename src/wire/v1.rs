//! The agents' words (docs/protocol.md, section 4): how they are recognised, and how payload is kept apart from them.
//!
//! Pure functions: no I/O and no state but [`Words`].

/// Answer to the right passcode.
pub const AUTHORIZED: &[u8] = b"AUTHORIZED";
/// A heartbeat, and the answer to it.
pub const BEAT: &[u8] = b"BEAT";
/// Said before the passcode, without TLS, by an agent that marks where its payload begins. It is answered by itself.
pub const PREAMBLE: &[u8] = b"iofog/1 dev mode";
/// On a connection that began with [`PREAMBLE`]: behind it all is payload.
pub const DATA: &[u8] = b"DATA";
/// Bytes of [`BEAT`] and of [`DATA`].
const WORD: usize = 4;

/// How many `BEAT` in a row make heartbeats of a record: nobody writes two into one.
pub const BEATS_A_RECORD: usize = 1;
/// The same for what one read of plain TCP gave. Two heartbeats may run together; the field's agents, too, take
/// `BEATBEAT` for two, and three for payload.
pub const BEATS_A_READ: usize = 2;

/// How many heartbeats a message is: n for n times `BEAT` and nothing else, 0 for payload, which more than `most` are.
pub fn beats(message: &[u8], most: usize) -> usize {
    let count = message.len() / WORD;
    if count <= most && message.chunks(WORD).all(|word| word == BEAT) { count } else { 0 }
}

/// Cuts a message of payload so that neither piece can be taken for heartbeats. The second one is empty almost always.
///
/// The field's agent compares each record with `BEAT` and `BEATBEAT`.
pub fn cut(message: &[u8]) -> (&[u8], &[u8]) {
    let at = if matches!(message, b"BEAT" | b"BEATBEAT") { 2 } else { message.len() };
    message.split_at(at)
}

/// Takes the answers out of what one read of plain TCP brought: what is left is payload. Returns how many answers there
/// were: as many as are `awaited` at most.
pub fn sift(message: &[u8], awaited: usize) -> (&[u8], usize) {
    let (mut payload, mut answers) = (message, 0);
    while answers < awaited {
        let Some(rest) = payload.strip_prefix(BEAT).or_else(|| payload.strip_suffix(BEAT)) else { break };
        payload = rest;
        answers += 1;
    }
    (payload, answers)
}

/// A word of a connection that began with [`PREAMBLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Beat,
    Data,
}

/// What came is neither of the two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWord;

/// Puts words together from whatever pieces TCP makes of them.
#[derive(Debug, Default)]
pub struct Words {
    bytes: [u8; WORD],
    len: usize,
}

impl Words {
    /// Bytes that the next word still needs. Never 0: behind [`DATA`] nothing may be read by accident.
    pub fn missing(&self) -> usize {
        WORD - self.len
    }

    /// Takes the next bytes, at most [`Words::missing`]. `None`: the word is not complete yet.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Word>, NoWord> {
        let room = self.bytes.get_mut(self.len..self.len + bytes.len()).ok_or(NoWord)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        if self.len < WORD {
            return Ok(None);
        }
        self.len = 0;
        match &self.bytes[..] {
            BEAT => Ok(Some(Word::Beat)),
            DATA => Ok(Some(Word::Data)),
            _ => Err(NoWord),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_beats_are_heartbeats() {
        assert_eq!(beats(b"BEAT", BEATS_A_RECORD), 1);
        assert_eq!(beats(b"BEATBEAT", BEATS_A_READ), 2);
        assert_eq!(beats(b"BEATBEATBEAT", usize::MAX), 3);
        for payload in [&b""[..], b"BEA", b"BEATB", b"xBEAT", b"BEAT\n", b"beat", b"BEATBEATxxxx"] {
            assert_eq!(beats(payload, usize::MAX), 0, "{payload:?}");
        }
    }

    #[test]
    fn more_beats_than_anybody_sends_at_once_are_payload() {
        assert_eq!(beats(b"BEATBEAT", BEATS_A_RECORD), 0);
        for count in [3, 4, 4096] {
            assert_eq!(beats(&BEAT.repeat(count), BEATS_A_READ), 0);
        }
    }

    #[test]
    fn no_piece_of_a_cut_message_is_a_heartbeat() {
        for message in [&b"BEAT"[..], b"BEATBEAT"] {
            let (head, tail) = cut(message);
            assert_eq!((beats(head, usize::MAX), beats(tail, usize::MAX)), (0, 0));
            assert_eq!([head, tail].concat(), message);
        }
        assert_eq!(cut(b"BEATS"), (&b"BEATS"[..], &b""[..]));
    }

    #[test]
    fn words_come_in_any_pieces() {
        for size in 1..=WORD {
            let (mut words, mut heard) = (Words::default(), Vec::new());
            let mut stream = &b"BEATBEATDATABEAT"[..];
            while !heard.ends_with(&[Word::Data]) {
                let (piece, rest) = stream.split_at(size.min(words.missing()));
                heard.extend(words.take(piece).unwrap());
                stream = rest;
            }
            assert_eq!(heard, [Word::Beat, Word::Beat, Word::Data]);
            assert_eq!(stream, b"BEAT", "payload is not touched");
        }
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(Words::default().take(b"BEAR"), Err(NoWord));
        assert_eq!(Words::default().take(b"DATAx"), Err(NoWord));
    }

    #[test]
    fn answers_are_cut_off_only_while_they_are_awaited() {
        for awaited in [0, 1, 2] {
            assert_eq!(sift(b"BEATBEAT", awaited), (&b"BEATBEAT"[4 * awaited..], awaited));
            assert_eq!(sift(b"payload", awaited), (&b"payload"[..], 0));
        }
        assert_eq!(sift(b"BEATpayload", 0), (&b"BEATpayload"[..], 0));
        assert_eq!(sift(b"BEATpayload", 1), (&b"payload"[..], 1));
        assert_eq!(sift(b"payloadBEAT", 1), (&b"payload"[..], 1));
        assert_eq!(sift(b"BEATBEATBEAT!", 2), (&b"BEAT!"[..], 2), "no more than are awaited");
        assert_eq!(sift(b"BEATpayloadBEAT", 2), (&b"payload"[..], 2));
    }
}
