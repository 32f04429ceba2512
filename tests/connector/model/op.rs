//! What can happen, and random sequences of it.
//!
//! Who is meant is a number that is taken modulo those who are there when the step's turn comes: so any part of a
//! sequence is a sequence, too.

use super::line::Wrong;
use super::options::Options;
use super::session::Break;

/// One step.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Add {
        private: bool,
        places: usize,
        options: Options,
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
        version: Version,
    },
    /// One that is not let in.
    Refused {
        mapping: usize,
        side: usize,
        how: Refused,
    },
    /// A user that says nothing yet. `mute`: it does not begin its TLS handshake, where there is one.
    User {
        mapping: usize,
        from: usize,
        narrow: bool,
        mute: bool,
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
    /// A free agent of a private pipe asks for a session: one of version 2 that calls, or one of version 1 that is the
    /// listening end of a tunnel.
    Call {
        mapping: usize,
        side: usize,
        agent: usize,
        client: Client,
    },
    /// One that has asked for one and waits takes that back, or goes.
    TakeBack {
        mapping: usize,
        side: usize,
        call: usize,
        goes: bool,
    },
    /// A free agent of version 2 says what it must not; one of version 1 nothing.
    Wrong {
        mapping: usize,
        side: usize,
        agent: usize,
        what: Wrong,
    },
    /// A free agent of version 2 takes its leave.
    Bye {
        mapping: usize,
        side: usize,
        agent: usize,
    },
    /// One whose session is still to be served.
    ByeJoined {
        session: usize,
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
    /// Both sides end, this one first.
    Finish {
        session: usize,
        side: usize,
        last: usize,
    },
    /// One side breaks off.
    Break {
        session: usize,
        side: usize,
        how: Break,
    },
    /// An agent that falls silent, at a mapping of its own.
    Absence {
        framed: bool,
    },
    /// A session in which nothing moves, at a mapping of its own.
    Idle {
        framed: bool,
    },
    Reload,
    Restart,
    Kill,
}

/// What an agent speaks.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    One,
    /// It says hello with the passcode's last piece, and accepts so much in a frame. At a private pipe it may begin the
    /// sessions.
    Two {
        largest: u16,
        calls: bool,
    },
    /// Its hello does not come in one piece with the passcode, but after so many bytes: so it speaks version 1.
    Late {
        at: usize,
    },
}

/// What an agent that calls tells of its client.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    Unnamed,
    Ipv4,
    Ipv6,
}

/// Why an agent is not let in.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    WrongPasscode,
    WrongPasscodeAndHello,
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
    let first = add(&mut random);
    std::iter::once(first).chain((1..steps).map(|_| op(&mut random))).collect()
}

fn add(random: &mut Random) -> Op {
    let private = random.one_in(2);
    Op::Add { private, places: 1 + random.below(4), options: Options::random(random) }
}

fn op(random: &mut Random) -> Op {
    let mapping = random.below(3);
    let session = random.below(8);
    let side = random.below(2);
    let narrow = random.one_in(3);
    match random.below(224) {
        0..12 => add(random),
        12..16 => Op::Remove { mapping },
        16..54 => {
            let (pieces, version) = (1 + random.below(3), version(random));
            Op::Agent { mapping, side, pieces, narrow, version }
        }
        54..61 => Op::Refused { mapping, side, how: refused(random) },
        61..83 => Op::User { mapping, from: random.below(3), narrow, mute: random.one_in(10) },
        83..107 => Op::Ask { mapping, user: random.below(4), bytes: size(random).min(16 * 1024) },
        107..112 => Op::Leave { mapping, side, who: random.below(4), reset: random.one_in(2) },
        112..116 => Op::Discarded { mapping, side, agent: random.below(4), bytes: size(random) },
        116..120 => Op::Beat { mapping, side, agent: random.below(4) },
        120..123 => Op::Wrong { mapping, side, agent: random.below(4), what: wrong(random) },
        123..125 => Op::Bye { mapping, side, agent: random.below(4) },
        125..127 => Op::ByeJoined { session },
        127..151 => Op::Send { session, from: side, bytes: size(random), pieces: 1 + random.below(3) },
        151..162 => Op::Receive { session, from: side },
        162..168 => Op::BeatJoined { session, side },
        168..172 => Op::Stall { session, from: side },
        172..182 => Op::Finish { session, side, last: size(random) },
        182..192 => Op::Break { session, side, how: break_off(random) },
        192..194 => Op::Absence { framed: random.one_in(2) },
        194..196 => Op::Reload,
        196..198 => Op::Restart,
        198 => Op::Kill,
        200..220 => Op::Call { mapping, side, agent: random.below(4), client: client(random) },
        220..224 => Op::TakeBack { mapping, side, call: random.below(4), goes: random.one_in(3) },
        _ if random.one_in(2) => Op::Idle { framed: random.one_in(2) },
        _ => Op::Kill,
    }
}

/// Half of the agents speak in frames.
fn version(random: &mut Random) -> Version {
    match random.below(8) {
        0..3 => Version::One,
        3 => Version::Late { at: random.below(20) },
        _ => Version::Two { largest: [1024, 5000, 65_532, 65_535][random.below(4)], calls: random.one_in(2) },
    }
}

fn client(random: &mut Random) -> Client {
    [Client::Unnamed, Client::Ipv4, Client::Ipv6][random.below(3)]
}

fn refused(random: &mut Random) -> Refused {
    match random.below(5) {
        0 => Refused::ShortPasscode,
        1 => Refused::Garbage,
        2 => Refused::Silence,
        3 => Refused::WrongPasscodeAndHello,
        _ => Refused::WrongPasscode,
    }
}

fn wrong(random: &mut Random) -> Wrong {
    match random.below(6) {
        0 => Wrong::UnknownType,
        1 => Wrong::Open,
        2 => Wrong::TooLong,
        3 => Wrong::TooShort,
        4 => Wrong::LongPing,
        _ => Wrong::OutOfPlace,
    }
}

fn break_off(random: &mut Random) -> Break {
    match random.below(8) {
        0 => Break::Abort,
        1 => Break::Torn,
        2 => Break::Cut,
        3 => Break::Reset,
        4 => Break::ResetBehindFin,
        5 => Break::Close,
        6 => Break::Wrong(wrong(random)),
        _ => Break::AfterFin,
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
pub struct Random(u64);

impl Random {
    /// From 0 to `limit` - 1.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}
