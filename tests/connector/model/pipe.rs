//! One open mapping as it should be: who is connected to it, and what has gone through it.

use super::session::{Session, Way};
use crate::harness::{Heard, Mapping, Mode, PATIENCE, Peer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long one of several peers is listened to before the next.
const GLANCE: Duration = Duration::from_millis(1);
/// A user waits 5 s for an agent. The model lets it go before that, so that a busy machine makes no difference.
const WAITS: Duration = Duration::from_millis(2500);

/// Bytes from port1, from port2 and to nobody; at least and at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([(u64, u64); 3]);

impl Counts {
    fn add(&mut self, which: usize, (least, most): (u64, u64)) {
        self.0[which].0 += least;
        self.0[which].1 += most;
    }

    pub fn plus(mut self, other: Self) -> Self {
        (0..3).for_each(|which| self.add(which, other.0[which]));
        self
    }

    /// Whether the daemon says the same.
    pub fn agrees(&self, status: &Value) -> bool {
        ["bytesport1", "bytesport2", "discarded"].iter().zip(self.0).all(|(key, (least, most))| {
            let count = status[key].as_u64().expect("a number");
            (least..=most).contains(&count)
        })
    }
}

/// A user that has sent its first bytes.
pub struct Waiting {
    user: Peer,
    to_agent: Way,
    since: Instant,
}

pub struct Pipe {
    pub mapping: Mapping,
    pub private: bool,
    pub places: usize,
    /// Agents of port1 and port2 without a partner.
    pub free: [Vec<Peer>; 2],
    /// Users without a byte.
    pub silent: Vec<Peer>,
    waiting: Vec<Waiting>,
    pub sessions: Vec<Session>,
    /// What has gone through sessions that are over.
    past: Counts,
}

impl Pipe {
    pub fn new(mapping: Mapping, private: bool, places: usize) -> Self {
        let (free, silent, waiting, sessions) = Default::default();
        Self { mapping, private, places, free, silent, waiting, sessions, past: Counts::default() }
    }

    /// The same mapping after a restart of the daemon.
    pub fn afresh(&self) -> Self {
        Self::new(self.mapping.clone(), self.private, self.places)
    }

    /// The side that `side` means here: users are no agents.
    pub fn agent_side(&self, side: usize) -> usize {
        if self.private { side } else { 0 }
    }

    pub fn has_place(&self, side: usize) -> bool {
        self.free[side].len() + self.sessions.len() < self.places
    }

    pub fn somebody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn wait(&mut self, user: Peer, to_agent: Way) {
        self.waiting.push(Waiting { user, to_agent, since: Instant::now() });
    }

    /// Users that have waited for long go away, with a reset: without TLS a FIN behind what they asked is no end yet.
    pub fn give_up(&mut self) {
        let is_patient = |waiting: &Waiting| waiting.since.elapsed() < WAITS;
        let (stay, go) = std::mem::take(&mut self.waiting).into_iter().partition(is_patient);
        self.waiting = stay;
        go.into_iter().for_each(|waiting: Waiting| waiting.user.reset());
    }

    /// A private pair is made by the daemon alone: whether one is due.
    pub fn pair_is_due(&self) -> bool {
        self.private && self.free.iter().all(|side| !side.is_empty())
    }

    /// Whoever has waited longest has been joined; finds out to whom.
    #[track_caller]
    pub fn join(&mut self, mode: Mode, mut seed: impl FnMut() -> u64) {
        let ways = [Way::new(seed()), Way::new(seed())];
        let (ends, ways) = if self.pair_is_due() {
            // Where there are several, the other side has had nobody until now.
            let lone = if self.free[0].len() == 1 { 0 } else { 1 };
            let mut ways = ways;
            let speaker = self.free[lone].remove(0);
            speaker.send(&ways[lone].take(8));
            let partner = hears(&mut self.free[1 - lone], &mut ways[lone]);
            (if lone == 0 { [speaker, partner] } else { [partner, speaker] }, ways)
        } else if !self.free[0].is_empty() && !self.waiting.is_empty() {
            let Waiting { user, mut to_agent, .. } = self.waiting.remove(0);
            let agent = hears(&mut self.free[0], &mut to_agent);
            let [to_user, _] = ways;
            ([agent, user], [to_user, to_agent])
        } else {
            return;
        };
        self.sessions.push(Session::new(ends, ways, self.private, mode));
    }

    /// What nobody wanted.
    pub fn count_discarded(&mut self, bytes: u64) {
        self.past.add(2, (bytes, bytes));
    }

    /// A session is over.
    pub fn count(&mut self, session: &Session) {
        session.ways.iter().enumerate().for_each(|(side, way)| self.past.add(side, way.moved()));
    }

    /// What has gone through so far.
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        for session in &self.sessions {
            session.ways.iter().enumerate().for_each(|(side, way)| counts.add(side, way.moved()));
        }
        counts
    }

    /// What `status` has to say of it.
    pub fn status(&self) -> Value {
        let [free, free2] = [0, 1].map(|side| self.free[side].len());
        let (joined, discarded) = (self.sessions.len(), self.past.0[2].0);
        if self.private {
            return json!({
                "agentsport1": free + joined, "agentsport2": free2 + joined, "freeport1": free, "freeport2": free2,
                "joined": joined, "discarded": discarded,
            });
        }
        let (silent, waiting) = (self.silent.len(), self.waiting.len());
        json!({
            "agents": free + joined, "free": free, "joined": joined, "users": silent + waiting + joined,
            "waiting": waiting, "silent": silent, "discarded": discarded,
        })
    }

    /// Everybody who is connected.
    pub fn into_peers(self) -> Vec<Peer> {
        let joined = self.sessions.into_iter().flat_map(|session| session.ends);
        let waiting = self.waiting.into_iter().map(|waiting| waiting.user);
        self.free.into_iter().flatten().chain(self.silent).chain(waiting).chain(joined).collect()
    }
}

/// The one of `peers` that hears the beginning of `way`; nobody else hears anything.
#[track_caller]
fn hears(peers: &mut Vec<Peer>, way: &mut Way) -> Peer {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for number in 0..peers.len() {
            match peers[number].hear(GLANCE) {
                Heard::Silence => {}
                Heard::Message(bytes) => {
                    way.check(&bytes);
                    return peers.remove(number);
                }
                Heard::Ended(end) => panic!("a free agent was ended: {end:?}"),
            }
        }
    }
    panic!("nobody was joined");
}
