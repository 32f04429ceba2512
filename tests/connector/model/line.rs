//! An agent's connection that speaks in frames (docs/protocol.md, section 10), as strict as the document: whatever the
//! Connector must not say ends the test.

use crate::harness::frames::{ACCEPT, BYE, DATA, FIN, OPEN, PING, PONG, RESET, WANT, frame};
use crate::harness::{End, Heard, PATIENCE, Payload, Peer};
use std::io;
use std::time::{Duration, Instant};

/// The length of a hello.
pub const HELLO: usize = 20;
/// Payload of a frame that the Connector says it accepts.
const ACCEPTED: usize = 65_532;
/// The same of a frame that is no DATA.
const CONTROL: usize = 1024;
/// Payload of a frame within one record.
const RECORD: usize = 16_380;

/// What an agent says behind its passcode: whether it begins the sessions, and that it accepts so much in a frame.
pub fn hello(calls: bool, largest: u16, token: u64) -> Vec<u8> {
    [b"\0iofog/2\x02", &[u8::from(calls)][..], &largest.to_be_bytes()[..], &token.to_be_bytes()].concat()
}

/// What comes from the other side of a session, or besides.
#[derive(Debug)]
pub enum Word {
    Payload(Vec<u8>),
    /// A session begins.
    Open(Vec<u8>),
    /// The one that we have opened begins.
    Accepted,
    /// All payload has come.
    Finished,
    /// The session is broken off.
    Broken,
    Pong,
    Bye,
    /// The connection has ended.
    Ended(End),
    Silence,
}

/// What ends a connection that says it, and the session that is under way.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    UnknownType,
    Open,
    /// One byte more than the Connector accepts.
    TooLong,
    /// WANT with half a number.
    TooShort,
    /// A frame that is no DATA, and longer than those may be.
    LongPing,
    /// DATA without a session; within one a second FIN.
    OutOfPlace,
}

pub struct Line {
    pub peer: Peer,
    /// What has come and is not a whole frame.
    rest: Vec<u8>,
    /// Of the last session; 0: there was none yet.
    number: u8,
    sessions: u64,
    /// We have said FIN or RESET in the last session.
    has_told: bool,
    /// The Connector has.
    has_ended: bool,
    has_heard_reset: bool,
    /// We will not use the connection again.
    pub is_leaving: bool,
    /// What we accept in a frame.
    largest: usize,
    is_tls: bool,
    /// We begin the sessions.
    pub calls: bool,
    /// We have, and have not been answered.
    is_pending: bool,
}

impl Line {
    /// The hello has been said; this hears the other one.
    #[track_caller]
    pub fn new(peer: Peer, said: &[u8], largest: u16, is_tls: bool) -> Self {
        peer.expect_message(b"AUTHORIZED");
        let hello = peer.expect_up_to(HELLO);
        assert_eq!(hello.len(), HELLO, "a hello as a message of its own");
        assert_eq!((&hello[..10], &hello[12..]), (&said[..10], &said[12..]));
        assert_eq!(usize::from(u16::from_be_bytes([hello[10], hello[11]])), ACCEPTED);
        Self {
            peer,
            rest: Vec::new(),
            number: 0,
            sessions: 0,
            has_told: true,
            has_ended: true,
            has_heard_reset: false,
            is_leaving: false,
            largest: largest.into(),
            is_tls,
            calls: said[9] == 1,
            is_pending: false,
        }
    }

    /// Begins a session.
    pub fn call(&mut self, client: &[u8]) {
        assert!(self.calls && self.is_over(), "a session to be begun");
        self.sessions += 1;
        self.number = (self.sessions % 128) as u8;
        (self.has_told, self.has_ended, self.has_heard_reset) = (false, false, false);
        self.is_pending = true;
        self.say(OPEN, self.number, client);
    }

    /// Takes that back while nobody has been found; the connection is free again.
    #[track_caller]
    pub fn take_back(&mut self) {
        self.confirm();
        let heard = self.hear(PATIENCE);
        assert!(matches!(heard, Word::Broken), "{heard:?} instead of a confirmation");
    }

    /// Neither side has anything more to say in the session.
    pub fn is_over(&self) -> bool {
        self.has_told && self.has_ended
    }

    pub fn has_told(&self) -> bool {
        self.has_told
    }

    /// Sends payload of the session, every third time the frames in two pieces.
    pub fn try_send(&self, bytes: &[u8], patience: Duration) -> io::Result<bool> {
        let frames: Vec<u8> = bytes.chunks(ACCEPTED).flat_map(|part| frame(DATA, self.number, part)).collect();
        let pieces = if bytes.len() % 3 == 0 { frames.split_at(frames.len() / 2 + 1) } else { (&frames[..], &[][..]) };
        Ok(self.peer.try_send(pieces.0, patience)? & self.peer.try_send(pieces.1, patience)?)
    }

    /// Says something in the session, or besides with `flags` 0. What is not taken now is kept.
    fn say(&self, kind: u8, flags: u8, payload: &[u8]) {
        // Who is gone is found out by who listens.
        let _ = self.peer.try_send(&frame(kind, flags, payload), PATIENCE);
    }

    pub fn finish(&mut self) {
        self.say(FIN, self.number, b"");
        self.has_told = true;
    }

    /// Breaks the session off. What is held back goes when somebody reads.
    pub fn reset(&mut self) {
        let _ = self.peer.try_send(&frame(RESET, self.number, &[1]), Duration::from_millis(1));
        self.has_told = true;
    }

    /// The same, and nothing is held back.
    pub fn confirm(&mut self) {
        self.reset();
        let _ = self.peer.try_send(&[], PATIENCE);
    }

    pub fn ping(&self) {
        self.say(PING, 0, b"");
    }

    pub fn bye(&mut self) {
        self.say(BYE, 0, b"");
        self.is_leaving = true;
    }

    /// What is to be skipped: frames of sessions that are over, and of a type that may be skipped.
    pub fn say_late(&self, seed: u64) {
        let other = (self.number + 100) % 128;
        let payload = Payload::new(seed).take(1 + (seed % 2000) as usize);
        let unknown = &payload[..payload.len().min(CONTROL)];
        for (kind, flags, payload) in
            [(DATA, other, &payload[..]), (FIN, other, b""), (RESET, other, b"\x01"), (77, 0x80, unknown)]
        {
            self.say(kind, flags, payload);
        }
    }

    /// Payload of the session that its user will never get.
    pub fn say_unheard(&self, seed: u64) {
        if !self.has_told {
            self.say(DATA, self.number, &Payload::new(seed).take(1 + (seed % 5000) as usize));
        }
    }

    /// Begins a frame of which no more than this will come; without payload not even all of the header.
    pub fn begin_frame(&self, payload: &[u8]) {
        let frame = frame(DATA, self.number, &[payload, &[0]].concat());
        let _ = self
            .peer
            .try_send(&frame[..if payload.is_empty() { 3 } else { 4 + payload.len() }], Duration::from_millis(1));
    }

    /// Says what it must not.
    pub fn say_wrong(&mut self, wrong: Wrong) {
        if self.calls && self.is_over() && matches!(wrong, Wrong::Open) {
            // It may; but to accept is not up to agents.
            let _ = self.peer.try_send(&frame(ACCEPT, self.number, b""), Duration::from_millis(1));
            return;
        }
        let bytes = match wrong {
            Wrong::UnknownType => frame(99, 0, b""),
            Wrong::Open => frame(OPEN, (self.number + 1) % 128, b"\0\0"),
            Wrong::TooLong => frame(DATA, self.number, &[0; ACCEPTED + 1]),
            Wrong::TooShort => frame(WANT, 0, b"1"),
            Wrong::LongPing => frame(PING, 0, &[0; CONTROL + 1]),
            Wrong::OutOfPlace if self.is_over() => frame(DATA, self.number, b"nobody asked"),
            Wrong::OutOfPlace => [frame(FIN, self.number, b""), frame(FIN, self.number, b"")].concat(),
        };
        let _ = self.peer.try_send(&bytes, Duration::from_millis(1));
    }

    /// The next word that is not about the connection alone.
    #[track_caller]
    pub fn hear(&mut self, patience: Duration) -> Word {
        let deadline = Instant::now() + patience;
        loop {
            while let Some((kind, flags, payload)) = self.frame() {
                if let Some(word) = self.word(kind, flags, payload) {
                    return word;
                }
            }
            match self.peer.hear(deadline.saturating_duration_since(Instant::now())) {
                Heard::Message(bytes) => self.rest.extend(bytes),
                Heard::Silence => return Word::Silence,
                Heard::Ended(end) => return Word::Ended(end),
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let &[kind, flags, high, low] = self.rest.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        let payload = self.rest.get(4..end)?.to_vec();
        self.rest.drain(..end);
        Some((kind, flags, payload))
    }

    #[track_caller]
    fn word(&mut self, kind: u8, flags: u8, payload: Vec<u8>) -> Option<Word> {
        let expected = match kind {
            OPEN => ((self.sessions + 1) % 128) as u8,
            ACCEPT | DATA | FIN | RESET => self.number,
            _ => 0,
        };
        assert!(!self.is_pending || !matches!(kind, DATA | FIN), "frame {kind} before ACCEPT");
        assert_eq!(flags, expected, "session of frame {kind} in session {}", self.sessions);
        match kind {
            ACCEPT => {
                assert!(std::mem::take(&mut self.is_pending), "ACCEPT of what was not asked for");
                Some(Word::Accepted)
            }
            OPEN => {
                assert!(!self.calls, "OPEN for one that calls");
                assert!(self.is_over(), "OPEN in the middle of session {}", self.sessions);
                self.sessions += 1;
                self.number = flags;
                (self.has_told, self.has_ended, self.has_heard_reset) = (false, false, false);
                Some(Word::Open(payload))
            }
            DATA => {
                let most = if self.is_tls { self.largest.min(RECORD) } else { self.largest };
                assert!(payload.len() <= most, "{} bytes in a frame", payload.len());
                assert!(!self.has_ended, "DATA behind the Connector's end");
                (!payload.is_empty()).then_some(Word::Payload(payload))
            }
            FIN => {
                assert!(!self.has_ended, "FIN behind the Connector's end");
                self.has_ended = true;
                Some(Word::Finished)
            }
            RESET => {
                assert!(
                    !self.has_heard_reset && payload.len() == 1,
                    "RESET {payload:?}, the second: {}",
                    self.has_ended
                );
                (self.has_ended, self.has_heard_reset, self.is_pending) = (true, true, false);
                Some(Word::Broken)
            }
            PING => {
                self.say(PONG, 0, b"");
                None
            }
            PONG => Some(Word::Pong),
            WANT => {
                assert!(payload.len() == 2 && payload != [0, 0], "WANT {payload:?}");
                None
            }
            BYE => Some(Word::Bye),
            _ => panic!("frame {kind} of the Connector"),
        }
    }

    /// Exactly the confirmation of BYE, and the end.
    #[track_caller]
    pub fn expect_farewell(&mut self) {
        match (self.hear(PATIENCE), self.hear(PATIENCE)) {
            (Word::Bye, Word::Ended(_)) => {}
            other => panic!("{other:?} instead of BYE and the end"),
        }
    }
}
