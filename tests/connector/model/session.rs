//! Two connections that are joined, and the bytes on their way between them.

use super::line::{Word, Wrong};
use super::party::Party;
use crate::harness::{End, PATIENCE, Payload};
use std::thread;
use std::time::Duration;

/// A sender that is not taken anything from for so long meets back-pressure.
const STALLED: Duration = Duration::from_millis(30);
/// What a stalled sender sends at most.
const STALL: u64 = 2 << 20;

/// One direction: the same bytes as they were sent and as they were heard.
pub struct Way {
    seed: u64,
    /// What is heard first and was sent by nobody: a PROXY header.
    preface: Vec<u8>,
    sent: Payload,
    heard: Payload,
}

impl Way {
    pub fn new(seed: u64) -> Self {
        Self { seed, preface: Vec::new(), sent: Payload::new(seed), heard: Payload::new(seed) }
    }

    pub fn behind(self, preface: Vec<u8>) -> Self {
        Self { preface, ..self }
    }

    /// The next bytes to be sent.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.sent.take(bytes)
    }

    /// Takes in what was heard: it must be the next bytes, and no more than were sent.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8]) {
        let (preface, bytes) = bytes.split_at(bytes.len().min(self.preface.len()));
        assert_eq!(preface, self.preface.drain(..preface.len()).collect::<Vec<_>>(), "what stands before the payload");
        self.heard.check(bytes);
        assert!(self.heard.position() <= self.sent.position(), "more came than was sent");
    }

    /// Whether these bytes are the first ones of this way.
    pub fn begins_with(&self, bytes: &[u8]) -> bool {
        let (preface, bytes) = bytes.split_at(bytes.len().min(self.preface.len()));
        self.preface.starts_with(preface) && Payload::new(self.seed).take(bytes.len()) == bytes
    }

    pub fn is_empty(&self) -> bool {
        self.preface.is_empty() && self.heard.position() == self.sent.position()
    }

    /// Bytes that were passed on at least and at most.
    pub fn moved(&self) -> (u64, u64) {
        (self.heard.position(), self.sent.position())
    }
}

/// How a side breaks a session off.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// A reset of its connection.
    Abort,
    /// FIN without close_notify; where there is no TLS, a reset.
    Cut,
    /// What follows is of version 2; others reset their connection.
    ///
    /// A frame that ends the session alone.
    Reset,
    /// The same behind its own FIN, which takes nothing from that.
    ResetBehindFin,
    /// A frame that is not allowed, which ends the connection.
    Wrong(Wrong),
    /// Its connection is reset in the middle of a frame.
    Torn,
    /// Everything that TCP and TLS have to say of an end is no end of a session.
    Close,
    /// The other side has finished before.
    AfterFin,
}

/// At 0 the agent of port1, at 1 the user or the agent of port2. `ways[n]` begins at `ends[n]`.
pub struct Session {
    pub ends: [Party; 2],
    pub ways: [Way; 2],
}

impl Session {
    pub fn is_framed(&self) -> bool {
        self.ends[0].is_framed()
    }

    /// Each half ends by itself: nobody of version 1 takes part, except for users.
    fn ends_by_halves(&self) -> bool {
        self.is_framed() && !self.ends[1].is_plain()
    }

    /// The one that speaks in frames, if the other one is an agent of version 1.
    fn lone_line(&self) -> Option<usize> {
        let [one, other] = &self.ends;
        match (one.is_framed(), other.is_framed()) {
            (true, false) if other.is_plain() => Some(0),
            (false, true) => Some(1),
            _ => None,
        }
    }

    /// Where its user comes from.
    pub fn is_from(&self, address: [u8; 4]) -> bool {
        matches!(self.ends[1], Party::User { from, .. } if from == address)
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
        let [one, two] = &mut self.ends;
        let (sender, reader) = if from == 0 { (&*one, two) } else { (&*two, one) };
        let way = &mut self.ways[from];
        thread::scope(|scope| {
            scope.spawn(|| sender.peer().flush());
            while !way.is_empty() {
                match reader.hear(PATIENCE) {
                    Word::Payload(bytes) => way.check(&bytes),
                    other => panic!("{other:?} with {:?} of {:?} bytes", way.moved().0, way.moved().1),
                }
            }
        });
    }

    /// A heartbeat of an agent, and its answer. Everything else is heard first, so that the two stand alone.
    #[track_caller]
    pub fn beat(&mut self, side: usize, seed: u64) {
        if !self.ends[side].is_user() {
            self.receive(0);
            self.receive(1);
            if let Party::Framed(line) = &self.ends[side] {
                line.say_late(seed);
            }
            self.ends[side].beat();
        }
    }

    /// It will not serve another session.
    #[track_caller]
    pub fn bye(&mut self) {
        for end in &mut self.ends {
            match end {
                Party::Framed(line) if !line.is_leaving => return line.bye(),
                _ => {}
            }
        }
    }

    /// `side` ends, and then the other one. `contended`: somebody waits for an agent, which shortens the patience with
    /// who sends no more.
    #[track_caller]
    pub fn finish(&mut self, side: usize, last: usize, contended: bool) {
        self.receive(side);
        if let Some(framed) = self.lone_line() {
            return self.finish_mixed(framed, side == framed, last, contended);
        }
        if self.ends_by_halves() {
            return self.finish_both(side, last, contended);
        }
        self.ends[side].finish();
        if !self.ends[side].is_user() || self.ends[side].is_tls() {
            // All that it sent arrives at the other, and then the end.
            assert_eq!(self.end_of(1 - side), End::Clean);
            return;
        }
        // Without TLS a user may close its sending side and still wait for its answer, unless others wait.
        if !contended {
            self.send(0, last, 1);
            self.receive(0);
        }
        self.ends[0].finish();
        let end = self.end_of(1);
        assert!(contended || end == End::Clean, "{end:?} behind a whole answer");
    }

    /// Where each side ends by itself.
    fn finish_both(&mut self, side: usize, last: usize, contended: bool) {
        let other = 1 - side;
        if contended {
            // There may be no time for an answer.
            self.receive(other);
            [side, other].into_iter().for_each(|side| self.ends[side].finish());
            return [side, other].into_iter().for_each(|side| {
                self.end_of(side);
            });
        }
        self.ends[side].finish();
        assert_eq!(self.end_of(other), End::Clean, "of a half");
        self.send(other, last, 2);
        self.receive(other);
        self.ends[other].finish();
        assert_eq!(self.end_of(side), End::Clean, "of the other half");
    }

    /// Where one side knows no halves: it ends when that one ends, or when one that serves has.
    #[track_caller]
    fn finish_mixed(&mut self, framed: usize, begins: bool, last: usize, contended: bool) {
        let plain = 1 - framed;
        if begins {
            self.ends[framed].finish();
            if self.ends[framed].serves() {
                assert_eq!(self.end_of(plain), End::Clean, "behind FIN of one that serves");
                assert_eq!(self.end_of(framed), End::Clean, "in return");
                return;
            }
            // Of this the other one learns nothing, and may answer all the same; unless others wait.
            if !contended {
                self.send(plain, last, 1);
            }
            self.receive(plain);
            self.ends[plain].finish();
            assert_eq!(self.end_of(framed), End::Clean, "behind an answer");
            return;
        }
        self.receive(framed);
        self.ends[plain].finish();
        assert_eq!(self.end_of(framed), End::Clean, "of one of version 1");
        // What it would have to say is wanted by nobody any more.
        assert_eq!(self.end_of(framed), End::Reset, "of the other half");
        let Party::Framed(line) = &mut self.ends[framed] else { unreachable!() };
        line.confirm();
    }

    /// `side` breaks off: what arrives at the other is the beginning of what it sent, and then comes an end that is not
    /// taken for a clean one. `unheard`: what an agent sends to a user that is gone.
    #[track_caller]
    pub fn break_off(&mut self, side: usize, how: Break, contended: bool, unheard: u64) {
        let other = 1 - side;
        let mut expected_clean = false;
        let ends_by_halves = self.ends_by_halves() && !contended;
        let how = match how {
            // With one of version 1 FIN is the end already.
            Break::ResetBehindFin | Break::AfterFin | Break::Wrong(Wrong::OutOfPlace) if self.lone_line().is_some() => {
                Break::Reset
            }
            how => how,
        };
        match (how, &mut self.ends[side]) {
            (Break::AfterFin, _) if ends_by_halves => {
                self.receive(other);
                self.ends[other].finish();
                assert_eq!(self.end_of(side), End::Clean, "before a break");
                match &mut self.ends[side] {
                    Party::Framed(line) => line.reset(),
                    party => party.peer().abort(),
                }
            }
            (Break::Reset, Party::Framed(line)) => line.reset(),
            (Break::ResetBehindFin, Party::Framed(_)) => {
                self.receive(side);
                let Party::Framed(line) = &mut self.ends[side] else { unreachable!() };
                line.finish();
                line.reset();
                expected_clean = true;
            }
            (Break::Wrong(wrong), Party::Framed(_)) => {
                expected_clean = matches!(wrong, Wrong::OutOfPlace);
                if expected_clean {
                    self.receive(side);
                }
                let Party::Framed(line) = &mut self.ends[side] else { unreachable!() };
                line.say_wrong(wrong);
            }
            (Break::Torn, Party::Framed(line)) => {
                let payload = self.ways[side].take((unheard % 700) as usize);
                line.begin_frame(&payload);
                line.peer.abort();
            }
            (Break::Close, Party::Framed(_)) => {
                self.receive(side);
                self.ends[side].peer().finish();
            }
            (Break::Cut, party) if party.is_tls() => party.peer().cut(),
            (_, party) => party.peer().abort(),
        }
        let end = self.end_while_flushing(other);
        assert_eq!(end == End::Clean, expected_clean, "{end:?} behind {how:?}");
        if expected_clean && self.ends[other].is_framed() {
            assert_eq!(self.end_of(other), End::Reset, "behind FIN");
        }
        for end in [0, 1] {
            self.settle_line(end, side, how, unheard);
        }
    }

    /// Hears out what the connection at `end` is told of the end of its session, and confirms it.
    #[track_caller]
    fn settle_line(&mut self, end: usize, broken: usize, how: Break, unheard: u64) {
        let Party::Framed(line) = &mut self.ends[end] else { return };
        if broken == end && matches!(how, Break::Abort | Break::Cut | Break::Torn | Break::Close | Break::Wrong(_)) {
            return;
        }
        if broken != end {
            line.say_unheard(unheard);
            if !line.has_told() && unheard % 4 == 0 {
                // It goes instead of confirming.
                return line.peer.abort();
            }
        }
        if !line.has_told() {
            line.confirm();
        }
        if !line.is_over() {
            self.end_of(end);
        }
    }

    /// Which of the connections serve the next session.
    #[track_caller]
    pub fn into_free(self) -> [Option<Party>; 2] {
        self.ends.map(Self::next_of)
    }

    #[track_caller]
    fn next_of(end: Party) -> Option<Party> {
        let Party::Framed(mut line) = end else { return None };
        if !line.is_over() {
            return None;
        }
        if line.is_leaving {
            line.expect_farewell();
            return None;
        }
        Some(Party::Framed(line))
    }

    #[track_caller]
    fn end_while_flushing(&mut self, side: usize) -> End {
        let [one, two] = &mut self.ends;
        let (reader, sender) = if side == 0 { (one, &*two) } else { (two, &*one) };
        let way = &mut self.ways[1 - side];
        thread::scope(|scope| {
            // What was stalled before it broke off.
            scope.spawn(|| sender.peer().try_send(&[], PATIENCE));
            hear_end(reader, way)
        })
    }

    /// Whatever comes to `side` is the next of what was sent; then the end.
    #[track_caller]
    pub fn end_of(&mut self, side: usize) -> End {
        hear_end(&mut self.ends[side], &mut self.ways[1 - side])
    }
}

#[track_caller]
fn hear_end(reader: &mut Party, way: &mut Way) -> End {
    loop {
        let word = reader.hear(PATIENCE);
        match (&word, Party::end(&word)) {
            (_, Some(end)) => return end,
            (Word::Payload(bytes), _) => way.check(bytes),
            other => panic!("{other:?} instead of the end"),
        }
    }
}
