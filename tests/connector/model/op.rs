//! What can happen, and random sequences of it.
//!
//! Who is meant is a number that is taken modulo those who are there when the step's turn comes: so any part of a
//! sequence is a sequence, too.

/// One step.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Add {
        private: bool,
        places: usize,
    },
    Remove {
        mapping: usize,
    },
    /// An agent with the right passcode, in so many pieces.
    Agent {
        mapping: usize,
        side: usize,
        pieces: usize,
        narrow: bool,
    },
    /// One that is not let in.
    Refused {
        mapping: usize,
        side: usize,
        how: Refused,
    },
    /// A user that says nothing yet.
    User {
        mapping: usize,
        narrow: bool,
    },
    /// A silent user sends its first bytes.
    Ask {
        mapping: usize,
        user: usize,
        bytes: usize,
    },
    /// A silent user or a free agent goes.
    Leave {
        mapping: usize,
        side: usize,
        who: usize,
        reset: bool,
    },
    /// A free agent sends what nobody wants.
    Discarded {
        mapping: usize,
        side: usize,
        agent: usize,
        bytes: usize,
    },
    /// A heartbeat of a free agent.
    Beat {
        mapping: usize,
        side: usize,
        agent: usize,
    },
    Send {
        session: usize,
        from: usize,
        bytes: usize,
        pieces: usize,
    },
    /// What has been sent so far arrives.
    Receive {
        session: usize,
        from: usize,
    },
    /// A heartbeat of a joined agent.
    BeatJoined {
        session: usize,
        side: usize,
    },
    /// Sends until nothing is taken any more.
    Stall {
        session: usize,
        from: usize,
    },
    Finish {
        session: usize,
        side: usize,
        last: usize,
    },
    Reset {
        session: usize,
        side: usize,
    },
    /// An agent that falls silent, at a mapping of its own.
    Absence,
    Reload,
    Restart,
    Kill,
}

/// Why an agent is not let in.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    WrongPasscode,
    /// It ends before it was done.
    ShortPasscode,
    /// Not even TLS, where that is spoken.
    Garbage,
    Silence,
}

/// The same sequence for the same seed.
pub fn sequence(seed: u64, most: usize) -> Vec<Op> {
    let mut random = Random(seed);
    let steps = most / 4 + random.below(most - most / 4);
    let first = Op::Add { private: random.one_in(3), places: 1 + random.below(4) };
    std::iter::once(first).chain((1..steps).map(|_| op(&mut random))).collect()
}

fn op(random: &mut Random) -> Op {
    let mapping = random.below(3);
    let session = random.below(8);
    let side = random.below(2);
    let narrow = random.one_in(3);
    match random.below(100) {
        0..6 => Op::Add { private: random.one_in(3), places: 1 + random.below(4) },
        6..8 => Op::Remove { mapping },
        8..27 => Op::Agent { mapping, side, pieces: 1 + random.below(3), narrow },
        27..31 => Op::Refused {
            mapping,
            side,
            how: match random.below(4) {
                0 => Refused::ShortPasscode,
                1 => Refused::Garbage,
                2 => Refused::Silence,
                _ => Refused::WrongPasscode,
            },
        },
        31..42 => Op::User { mapping, narrow },
        42..55 => Op::Ask { mapping, user: random.below(4), bytes: size(random).min(16 * 1024) },
        55..58 => Op::Leave { mapping, side, who: random.below(4), reset: random.one_in(2) },
        58..60 => Op::Discarded { mapping, side, agent: random.below(4), bytes: size(random) },
        60..62 => Op::Beat { mapping, side, agent: random.below(4) },
        62..76 => Op::Send { session, from: side, bytes: size(random), pieces: 1 + random.below(3) },
        76..82 => Op::Receive { session, from: side },
        82..85 => Op::BeatJoined { session, side },
        85..87 => Op::Stall { session, from: side },
        87..92 => Op::Finish { session, side, last: size(random) },
        92..96 => Op::Reset { session, side },
        96 => Op::Absence,
        97 => Op::Reload,
        98 => Op::Restart,
        _ => Op::Kill,
    }
}

/// Small, about a record, or larger: bounds are where things break.
fn size(random: &mut Random) -> usize {
    match random.below(6) {
        0 => 1,
        1 => 4,
        2 => 1 + random.below(200),
        3 => 16 * 1024 - 1 + random.below(3),
        4 => 1 + random.below(16 * 1024),
        _ => 1 + random.below(100 * 1024),
    }
}

/// Splitmix64.
struct Random(u64);

impl Random {
    /// From 0 to `limit` - 1.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}
