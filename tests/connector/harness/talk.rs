//! What both ends of a session do, whatever version its agent speaks.

use super::frames::{ACCEPT, DATA, FIN, Frames, NOBODY, OPEN, PONG, RESET, WANT, frame};
use super::{Daemon, End, Heard, Mapping, PATIENCE, Peer, Version};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// More than this is sent in several frames.
const FRAME: usize = 16_000;

/// One end of a session.
pub trait Talk: Sync {
    /// False if not everything was taken within `patience`.
    fn send_within(&self, bytes: &[u8], patience: Duration) -> bool;

    /// The next payload, or the end of the session.
    fn hear(&self, patience: Duration) -> Heard;

    /// Sends no more.
    fn finish(&self);

    #[track_caller]
    fn send(&self, bytes: &[u8]) {
        assert!(self.send_within(bytes, PATIENCE), "nothing is taken any more");
    }

    /// The next payload, which must come.
    #[track_caller]
    fn expect_some(&self) -> Vec<u8> {
        match self.hear(PATIENCE) {
            Heard::Message(bytes) => bytes,
            other => panic!("expected bytes, got {other:?}"),
        }
    }

    /// Exactly these bytes next, in whatever pieces.
    #[track_caller]
    fn expect(&self, expected: &[u8]) {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            heard.extend(self.expect_some());
        }
        assert!(heard == expected, "{} bytes, not those that were expected", heard.len());
    }
}

impl Talk for Peer {
    fn send_within(&self, bytes: &[u8], patience: Duration) -> bool {
        Self::send_within(self, bytes, patience)
    }

    fn hear(&self, patience: Duration) -> Heard {
        Self::hear(self, patience)
    }

    fn finish(&self) {
        Self::finish(self);
    }
}

/// An agent's connection that speaks in frames, as the session sees it that is on it.
pub struct Session {
    frames: Frames,
    /// Of the last OPEN.
    number: AtomicU8,
}

impl Session {
    fn number(&self) -> u8 {
        self.number.load(Ordering::Relaxed)
    }
}

impl Talk for Session {
    fn send_within(&self, bytes: &[u8], patience: Duration) -> bool {
        let frames: Vec<u8> = bytes.chunks(FRAME).flat_map(|piece| frame(DATA, self.number(), piece)).collect();
        self.frames.peer.send_within(&frames, patience)
    }

    fn hear(&self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            let Some(next) = self.frames.hear(deadline.saturating_duration_since(Instant::now())) else {
                return Heard::Silence;
            };
            let of_session = [DATA, FIN, RESET, ACCEPT].contains(&next.kind);
            assert!(!of_session || next.flags == self.number(), "{next:?} in session {}", self.number());
            match next.kind {
                OPEN => self.number.store(next.flags, Ordering::Relaxed),
                DATA if !next.payload.is_empty() => return Heard::Message(next.payload),
                FIN => return Heard::Ended(End::Clean),
                RESET => return Heard::Ended(End::Reset),
                DATA | WANT | PONG | ACCEPT => {}
                _ => panic!("{next:?}"),
            }
        }
    }

    fn finish(&self) {
        self.frames.send(FIN, self.number(), b"");
    }
}

impl Daemon {
    /// An agent of this version on port1.
    #[track_caller]
    pub fn agent_of(&self, version: Version, mapping: &Mapping) -> Box<dyn Talk> {
        match version {
            Version::One => Box::new(self.agent(mapping)),
            Version::Two => Box::new(Session { frames: self.framed_agent(mapping), number: AtomicU8::new(0) }),
        }
    }

    /// An agent of this version and a user that are joined; `hello` went from the user to the agent.
    #[track_caller]
    pub fn pair_of(&self, version: Version, mapping: &Mapping) -> (Box<dyn Talk>, Peer) {
        if version == Version::One {
            let (agent, user) = self.pair(mapping);
            return (Box::new(agent), user);
        }
        let (agent, user) = (self.agent_of(version, mapping), self.user(mapping));
        user.send(b"hello");
        agent.expect(b"hello");
        (agent, user)
    }

    /// Agents of this version at both ports of a private mapping that are joined.
    #[track_caller]
    pub fn joined_of(&self, version: Version, mapping: &Mapping) -> [Box<dyn Talk>; 2] {
        if version == Version::One {
            return [0, 1].map(|side| Box::new(self.agent_on(mapping, side)) as Box<dyn Talk>);
        }
        let (caller, server) = (self.caller(mapping, 0), self.server(mapping, 1));
        caller.send(OPEN, 1, NOBODY);
        caller.expect_besides_want(ACCEPT, 1);
        server.expect_open(1);
        [caller, server].map(|frames| Box::new(Session { frames, number: AtomicU8::new(1) }) as Box<dyn Talk>)
    }
}
