//! Two connections that are joined, and the bytes on their way between them.

use crate::harness::{End, Heard, Mode, PATIENCE, Payload, Peer};
use std::thread;
use std::time::Duration;

/// A sender that is not taken anything from for so long meets back-pressure.
const STALLED: Duration = Duration::from_millis(30);
/// What a stalled sender sends at most.
const STALL: u64 = 2 << 20;

/// One direction: the same bytes as they were sent and as they were heard.
pub struct Way {
    sent: Payload,
    heard: Payload,
}

impl Way {
    pub fn new(seed: u64) -> Self {
        Self { sent: Payload::new(seed), heard: Payload::new(seed) }
    }

    /// The next bytes to be sent.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.sent.take(bytes)
    }

    /// Takes in what was heard: it must be the next bytes, and no more than were sent.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8]) {
        self.heard.check(bytes);
        assert!(self.heard.position() <= self.sent.position(), "more came than was sent");
    }

    pub fn is_empty(&self) -> bool {
        self.heard.position() == self.sent.position()
    }

    /// Bytes that were passed on at least and at most.
    pub fn moved(&self) -> (u64, u64) {
        (self.heard.position(), self.sent.position())
    }
}

/// At 0 the agent of port1, at 1 the user or the agent of port2. `ways[n]` begins at `ends[n]`.
pub struct Session {
    pub ends: [Peer; 2],
    pub ways: [Way; 2],
    /// Which ends are agents.
    pub agents: [bool; 2],
    mode: Mode,
}

impl Session {
    pub fn new(ends: [Peer; 2], ways: [Way; 2], private: bool, mode: Mode) -> Self {
        Self { ends, ways, agents: [true, private], mode }
    }

    /// Sends further bytes. What was stalled goes first, while the other end reads.
    #[track_caller]
    pub fn send(&mut self, from: usize, bytes: usize, pieces: usize) {
        self.receive(from);
        let message = self.ways[from].take(bytes);
        for piece in message.chunks(bytes.div_ceil(pieces).max(1)) {
            self.ends[from].try_send(piece, STALLED).expect("a connection that can be written to");
        }
    }

    /// Sends until nothing is taken any more.
    #[track_caller]
    pub fn stall(&mut self, from: usize) {
        self.receive(from);
        let most = self.ways[from].moved().1 + STALL;
        while self.ways[from].moved().1 < most {
            let message = self.ways[from].take(16 * 1024);
            if !self.ends[from].try_send(&message, STALLED).expect("a connection that can be written to") {
                return;
            }
        }
    }

    /// All that was sent arrives.
    #[track_caller]
    pub fn receive(&mut self, from: usize) {
        let Self { ends, ways, agents, mode } = self;
        let (sender, reader) = (&ends[from], &ends[1 - from]);
        thread::scope(|scope| {
            scope.spawn(|| sender.flush());
            while !ways[from].is_empty() {
                match reader.hear(PATIENCE) {
                    Heard::Message(bytes) if agents[1 - from] && is_beat(&bytes, *mode) => {}
                    Heard::Message(bytes) => ways[from].check(&bytes),
                    other => panic!("{other:?} with {:?} of {:?} bytes", ways[from].moved().0, ways[from].moved().1),
                }
            }
        });
    }

    /// A heartbeat of an agent, and its answer. Everything else is heard first, so that the two stand alone.
    #[track_caller]
    pub fn beat(&mut self, side: usize) {
        if !self.agents[side] {
            return;
        }
        self.receive(0);
        self.receive(1);
        self.ends[side].send(b"BEAT");
        self.ends[side].expect(b"BEAT");
    }

    /// `side` has ended in an orderly way: all that it sent arrives at the other, and then the end.
    #[track_caller]
    pub fn expect_whole(&mut self, side: usize) {
        self.receive(side);
        assert_eq!(self.end_of(1 - side), End::Clean);
    }

    /// `side` is broken: what arrives at the other is the beginning of what it sent, and then comes an end that is
    /// not taken for a clean one.
    #[track_caller]
    pub fn expect_broken(&mut self, side: usize) {
        assert_ne!(self.end_of(1 - side), End::Clean, "a broken end was told as a clean one");
    }

    /// Whatever comes to `side` is the next of what was sent; then the end.
    #[track_caller]
    pub fn end_of(&mut self, side: usize) -> End {
        loop {
            match self.ends[side].hear(PATIENCE) {
                Heard::Message(bytes) if self.agents[side] && is_beat(&bytes, self.mode) => {}
                Heard::Message(bytes) => self.ways[1 - side].check(&bytes),
                Heard::Ended(end) => return end,
                Heard::Silence => panic!("no end"),
            }
        }
    }
}

/// Over TLS a record of its own is never payload.
fn is_beat(message: &[u8], mode: Mode) -> bool {
    mode == Mode::Tls && message == b"BEAT"
}
