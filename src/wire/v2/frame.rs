//! Frames: four bytes of header, and payload.

/// Bytes of a header.
pub const HEADER: usize = 4;
/// Bytes of payload that fit a TLS record together with their header.
pub const IN_A_RECORD: usize = 16 * 1024 - HEADER;

/// In the flags of a header: who does not know this type may skip the frame.
const MAY_BE_IGNORED: u8 = 0x80;
/// The other flags are the number of the session.
const SESSION: u8 = 0x7f;

/// The types of frames.
pub mod kind {
    pub const OPEN: u8 = 1;
    pub const DATA: u8 = 2;
    pub const FIN: u8 = 3;
    pub const RESET: u8 = 4;
    pub const PING: u8 = 5;
    pub const PONG: u8 = 6;
    pub const WANT: u8 = 7;
    pub const BYE: u8 = 8;
    pub const ACCEPT: u8 = 9;
}

pub const PING: [u8; HEADER] = header(kind::PING, 0, 0);
pub const PONG: [u8; HEADER] = header(kind::PONG, 0, 0);
pub const BYE: [u8; HEADER] = header(kind::BYE, 0, 0);

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    /// Who does not know this type may skip the frame.
    pub may_be_ignored: bool,
    /// The number of the session that OPEN, ACCEPT, DATA, FIN and RESET belong to, modulo 128; else 0.
    pub session: u8,
    /// Bytes of payload.
    pub length: u16,
}

impl Header {
    pub const fn encode(self) -> [u8; HEADER] {
        let [high, low] = self.length.to_be_bytes();
        let ignored = if self.may_be_ignored { MAY_BE_IGNORED } else { 0 };
        [self.kind, ignored | self.session, high, low]
    }

    pub fn decode([kind, flags, high, low]: [u8; HEADER]) -> Self {
        Self {
            kind,
            may_be_ignored: flags & MAY_BE_IGNORED != 0,
            session: flags & SESSION,
            length: u16::from_be_bytes([high, low]),
        }
    }

    /// The number of the session that follows `session`.
    pub fn next(session: u8) -> u8 {
        session.wrapping_add(1) & SESSION
    }
}

/// The header of a frame that every version 2 knows.
pub const fn header(kind: u8, session: u8, length: u16) -> [u8; HEADER] {
    Header { kind, may_be_ignored: false, session, length }.encode()
}

/// `count` more connections are wanted.
pub fn want(count: u16) -> [u8; HEADER + 2] {
    let ([kind, flags, high, low], [count_high, count_low]) = (header(kind::WANT, 0, 2), count.to_be_bytes());
    [kind, flags, high, low, count_high, count_low]
}

/// Why a session is broken off. For the log: all of them mean the same to who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The other connection has failed, was reset, or was cut off.
    Broken,
    /// The local service cannot be reached.
    Refused,
    /// Nothing came for too long.
    Silent,
    /// It is ended from outside: no buffers, a reload, a stop.
    Ended,
    /// Nobody has come at the other side of a private pipe.
    NoPeer,
    /// One that is not known here.
    Other(u8),
}

impl Reason {
    pub fn code(self) -> u8 {
        match self {
            Self::Broken => 1,
            Self::Refused => 2,
            Self::Silent => 3,
            Self::Ended => 4,
            Self::NoPeer => 5,
            Self::Other(code) => code,
        }
    }

    pub fn of(code: u8) -> Self {
        match code {
            1 => Self::Broken,
            2 => Self::Refused,
            3 => Self::Silent,
            4 => Self::Ended,
            5 => Self::NoPeer,
            other => Self::Other(other),
        }
    }
}
