//! An agent's connection that speaks in frames, written from docs/protocol.md, section 10, and from nothing else.

use super::{Daemon, End, Heard, Mapping, PATIENCE, Peer, SILENCE, in_both_modes};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub const OPEN: u8 = 1;
pub const DATA: u8 = 2;
pub const FIN: u8 = 3;
pub const RESET: u8 = 4;
pub const PING: u8 = 5;
pub const PONG: u8 = 6;
pub const WANT: u8 = 7;
pub const BYE: u8 = 8;
pub const ACCEPT: u8 = 9;

/// What an agent says behind its passcode.
pub const HELLO: &[u8; 20] = b"\0iofog/2\x02\0\xff\xfcTOKEN-42";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a frame's length");
    [&[kind, flags], &length.to_be_bytes()[..], payload].concat()
}

/// An OPEN that says nothing of the user.
pub const NOBODY: &[u8] = &[0, 0];

/// Such a connection.
pub struct Frames {
    pub peer: Peer,
    /// Has come, and is not a whole frame.
    rest: Mutex<Vec<u8>>,
}

impl Daemon {
    /// An authorized agent on port1 that speaks in frames.
    #[track_caller]
    pub fn framed_agent(&self, mapping: &Mapping) -> Frames {
        self.greet_in_frames(mapping, 0, 0)
    }

    /// One on port1 (0) or port2 (1) of a private pipe that serves what the other side begins.
    #[track_caller]
    pub fn server(&self, mapping: &Mapping, side: usize) -> Frames {
        self.greet_in_frames(mapping, side, 0)
    }

    /// One that begins the sessions on its connection.
    #[track_caller]
    pub fn caller(&self, mapping: &Mapping, side: usize) -> Frames {
        self.greet_in_frames(mapping, side, 1)
    }

    #[track_caller]
    fn greet_in_frames(&self, mapping: &Mapping, side: usize, flags: u8) -> Frames {
        let peer = self.stranger(mapping, side);
        let mut said = *HELLO;
        said[9] = flags;
        peer.send(&[mapping.passcodes[side].as_bytes(), &said].concat());
        peer.expect_message(b"AUTHORIZED");
        let hello = peer.expect_up_to(20);
        assert_eq!((hello.len(), &hello[..10], &hello[12..]), (20, &said[..10], &said[12..]));
        Frames::new(peer)
    }
}

impl Frames {
    /// Both hellos have been said.
    pub fn new(peer: Peer) -> Self {
        Self { peer, rest: Mutex::default() }
    }

    #[track_caller]
    pub fn send(&self, kind: u8, session: u8, payload: &[u8]) {
        self.peer.send(&frame(kind, session, payload));
    }

    /// A whole frame of what has come.
    fn take(&self) -> Option<Frame> {
        let mut rest = self.rest.lock().expect("no panic in another thread");
        let &[kind, flags, high, low] = rest.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        let payload = rest.get(4..end)?.to_vec();
        rest.drain(..end);
        Some(Frame { kind, flags, payload })
    }

    /// The next frame. `None`: neither a frame nor the end within `patience`.
    #[track_caller]
    pub fn hear(&self, patience: Duration) -> Option<Frame> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            match self.peer.hear(deadline.saturating_duration_since(Instant::now())) {
                Heard::Message(bytes) => self.rest.lock().expect("no panic in another thread").extend(bytes),
                Heard::Silence => return None,
                Heard::Ended(end) => panic!("the connection has ended, {end:?}, instead of a frame"),
            }
        }
    }

    /// All frames up to the end of the connection. A part of one is left out.
    #[track_caller]
    pub fn until_end(&self) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        loop {
            frames.extend(std::iter::from_fn(|| self.take()));
            match self.peer.hear(PATIENCE) {
                Heard::Message(bytes) => self.rest.lock().expect("no panic in another thread").extend(bytes),
                Heard::Ended(end) => return (frames, end),
                Heard::Silence => panic!("no end after {frames:?}"),
            }
        }
    }

    #[track_caller]
    pub fn next(&self) -> Frame {
        self.hear(PATIENCE).expect("a frame")
    }

    /// Exactly this as the next frame.
    #[track_caller]
    pub fn expect(&self, kind: u8, flags: u8, payload: &[u8]) {
        assert_eq!(self.next(), Frame { kind, flags, payload: payload.to_vec() });
    }

    /// The next frame that is no WANT, which must be this session's OPEN.
    #[track_caller]
    pub fn expect_open(&self, session: u8) -> Frame {
        loop {
            let next = self.next();
            if next.kind != WANT {
                assert_eq!((next.kind, next.flags), (OPEN, session), "{next:?}");
                return next;
            }
        }
    }

    /// Exactly this payload next, in whatever frames of this session; other frames are passed over.
    #[track_caller]
    pub fn expect_data(&self, session: u8, expected: &[u8]) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let next = self.next();
            match next.kind {
                DATA => {
                    assert_eq!(next.flags, session);
                    got.extend(next.payload);
                }
                WANT | PONG => {}
                _ => panic!("{next:?} after {} of {} bytes", got.len(), expected.len()),
            }
        }
        assert_eq!(got, expected);
    }

    /// The next frame that is no WANT.
    #[track_caller]
    pub fn expect_besides_want(&self, kind: u8, flags: u8) -> Frame {
        loop {
            let next = self.next();
            if next.kind != WANT {
                assert_eq!((next.kind, next.flags), (kind, flags), "{next:?}");
                return next;
            }
        }
    }

    /// No frame, and no end, for [`SILENCE`].
    #[track_caller]
    pub fn expect_silence(&self) {
        assert_eq!(self.hear(SILENCE), None);
    }
}

/// A mapping with an agent that speaks in frames.
pub struct FramedPipe<'a> {
    pub daemon: &'a mut Daemon,
    pub mapping: Mapping,
    pub agent: Frames,
}

/// Runs a test in both modes, with a mapping for so many agents and one of them.
pub fn with_framed_agent(places: u32, test: impl Fn(&mut FramedPipe<'_>) + Sync) {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(places);
        test(&mut FramedPipe::of(daemon, mapping));
    });
}

impl<'a> FramedPipe<'a> {
    #[track_caller]
    pub fn of(daemon: &'a mut Daemon, mapping: Mapping) -> Self {
        let agent = daemon.framed_agent(&mapping);
        Self { daemon, mapping, agent }
    }

    /// The next user, of whom the agent is told with this session's OPEN.
    #[track_caller]
    pub fn user(&self, session: u8) -> Peer {
        let user = self.daemon.user(&self.mapping);
        self.agent.expect_open(session);
        user
    }

    /// The same, with kernel buffers so small that back-pressure is felt soon.
    #[track_caller]
    pub fn narrow_user(&self, session: u8) -> Peer {
        let user = self.daemon.dial(self.mapping.ports[1]).small_buffers().connect().expect("a connection");
        self.agent.expect_open(session);
        user
    }

    /// Ends both halves of a session in whose course nothing is left to be read, the agent's first.
    #[track_caller]
    pub fn end(&self, user: &Peer, session: u8) {
        self.agent.send(FIN, session, b"");
        user.expect_clean_end();
        user.finish();
        self.agent.expect_besides_want(FIN, session);
    }
}
