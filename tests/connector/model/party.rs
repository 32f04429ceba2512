//! One end of a session: a user, an agent of version 1, or an agent's connection that speaks in frames.

use super::line::{Line, Word};
use crate::harness::{End, Heard, Mode, PATIENCE, Peer};
use std::io;
use std::time::Duration;

pub enum Party {
    User { peer: Peer, is_tls: bool, from: [u8; 4] },
    Agent { peer: Peer, mode: Mode },
    Framed(Box<Line>),
}

impl Party {
    pub fn peer(&self) -> &Peer {
        match self {
            Self::User { peer, .. } | Self::Agent { peer, .. } => peer,
            Self::Framed(line) => &line.peer,
        }
    }

    pub fn into_peer(self) -> Peer {
        match self {
            Self::User { peer, .. } | Self::Agent { peer, .. } => peer,
            Self::Framed(line) => line.peer,
        }
    }

    pub fn is_framed(&self) -> bool {
        matches!(self, Self::Framed(_))
    }

    /// It speaks in frames and begins the sessions.
    pub fn calls(&self) -> bool {
        matches!(self, Self::Framed(line) if line.calls)
    }

    /// It speaks in frames and serves what the other side begins.
    pub fn serves(&self) -> bool {
        self.is_framed() && !self.calls()
    }

    /// It is an agent of version 1.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Agent { .. })
    }

    pub fn is_user(&self) -> bool {
        matches!(self, Self::User { .. })
    }

    pub fn is_tls(&self) -> bool {
        match self {
            Self::User { is_tls, .. } => *is_tls,
            Self::Agent { mode, .. } => *mode == Mode::Tls,
            Self::Framed(_) => false,
        }
    }

    /// Sends payload; false if not all of it was taken. The rest is kept: [`Peer::flush`].
    pub fn try_send(&self, bytes: &[u8], patience: Duration) -> io::Result<bool> {
        match self {
            Self::User { peer, .. } | Self::Agent { peer, .. } => peer.try_send(bytes, patience),
            Self::Framed(line) => line.try_send(bytes, patience),
        }
    }

    #[track_caller]
    pub fn hear(&mut self, patience: Duration) -> Word {
        let (peer, has_beats) = match self {
            Self::User { peer, .. } => (peer, false),
            Self::Agent { peer, mode } => (peer, *mode == Mode::Tls),
            Self::Framed(line) => return line.hear(patience),
        };
        loop {
            match peer.hear(patience) {
                // Over TLS a record of its own is never payload.
                Heard::Message(bytes) if has_beats && bytes == b"BEAT" => {}
                Heard::Message(bytes) => return Word::Payload(bytes),
                Heard::Ended(end) => return Word::Ended(end),
                Heard::Silence => return Word::Silence,
            }
        }
    }

    /// All payload has been sent.
    pub fn finish(&mut self) {
        match self {
            Self::User { peer, .. } | Self::Agent { peer, .. } => peer.finish(),
            Self::Framed(line) => line.finish(),
        }
    }

    /// A heartbeat, and its answer.
    #[track_caller]
    pub fn beat(&mut self) {
        match self {
            Self::User { .. } => {}
            Self::Agent { peer, .. } => {
                peer.send(b"BEAT");
                peer.expect(b"BEAT");
            }
            Self::Framed(line) => {
                line.ping();
                let heard = line.hear(PATIENCE);
                assert!(matches!(heard, Word::Pong), "{heard:?} instead of PONG");
            }
        }
    }

    /// The end of the session as it was told to this side.
    pub fn end(word: &Word) -> Option<End> {
        match word {
            Word::Finished => Some(End::Clean),
            Word::Broken => Some(End::Reset),
            Word::Ended(end) => Some(*end),
            _ => None,
        }
    }
}
