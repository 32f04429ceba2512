//! One open mapping as it should be: who is connected to it, and what has gone through it.

use super::line::{Line, Word};
use super::options::Options;
use super::party::Party;
use super::session::{Session, Way};
use crate::harness::{End, Heard, Mapping, Mode, PATIENCE, Peer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The words of a tunnel of version 1 (section 6).
const CALL: &[u8] = b"iofog/1 tunnel ?";
const HERE: &[u8] = b"iofog/1 tunnel !";
const BEGIN: &[u8] = b"iofog/1 tunnel >";
/// How long one of several peers is listened to before the next.
const GLANCE: Duration = Duration::from_millis(1);
/// A user waits 5 s for an agent. The model lets it go before that, so that a busy machine makes no difference.
const WAITS: Duration = Duration::from_millis(2500);

/// Bytes from port1, from port2 and to nobody; at least and at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([(u64, u64); 3]);

impl Counts {
    pub fn add(&mut self, which: usize, (least, most): (u64, u64)) {
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

/// A user without an agent.
pub struct Guest {
    user: Party,
    to_agent: Way,
    /// It has sent its first bytes.
    asked: bool,
    /// It does not even begin its TLS handshake.
    is_mute: bool,
    since: Instant,
}

/// An agent that has asked for a session and has not been joined to anybody.
pub struct Call {
    line: Box<Line>,
    client: Vec<u8>,
    since: Instant,
}

pub struct Pipe {
    pub mapping: Mapping,
    pub private: bool,
    pub places: usize,
    pub options: Options,
    mode: Mode,
    /// Agents of port1 and port2 without a partner.
    pub free: [Vec<Party>; 2],
    /// Those of them that have asked for one, in this order.
    pub calls: [Vec<Call>; 2],
    /// In the order in which they came, or asked.
    pub guests: Vec<Guest>,
    pub sessions: Vec<Session>,
    /// Users have been introduced to agents before they said anything.
    is_eager: bool,
    /// What has gone through sessions that are over.
    past: Counts,
}

impl Pipe {
    pub fn new(mapping: Mapping, private: bool, places: usize, options: Options, mode: Mode) -> Self {
        let (free, calls, guests, sessions) = Default::default();
        let (is_eager, past) = (options.introduces(), Counts::default());
        Self { mapping, private, places, options, mode, free, calls, guests, sessions, is_eager, past }
    }

    /// The same mapping after a restart of the daemon.
    pub fn afresh(&self) -> Self {
        Self::new(self.mapping.clone(), self.private, self.places, self.options, self.mode)
    }

    /// The side that `side` means here: users are no agents.
    pub fn agent_side(&self, side: usize) -> usize {
        if self.private { side } else { 0 }
    }

    pub fn has_place(&self, side: usize) -> bool {
        self.free[side].len() + self.calls[side].len() + self.sessions.len() < self.places
    }

    /// Whether agents of the other port may be joined to one that comes.
    pub fn has_others(&self, side: usize) -> bool {
        !self.free[1 - side].is_empty() || !self.calls[1 - side].is_empty()
    }

    /// Whether agents are told of users that have not said anything.
    fn introduces(&self) -> bool {
        let is_framed = self.free[0].iter().any(Party::is_framed) || self.sessions.iter().any(Session::is_framed);
        is_framed || self.options.introduces()
    }

    pub fn somebody_waits(&self) -> bool {
        let somebody_calls = self.calls.iter().any(|calls| !calls.is_empty());
        somebody_calls || self.guests.iter().any(|guest| guest.asked) || (self.is_eager && !self.guests.is_empty())
    }

    /// An agent has been authorized.
    pub fn welcome(&mut self, agent: Party, side: usize) {
        self.is_eager |= agent.is_framed();
        self.free[side].push(agent);
    }

    /// A user has connected.
    pub fn receive(&mut self, peer: Peer, from: [u8; 4], seed: u64) {
        if self.introduces() && self.is_full(from) {
            peer.expect_end();
            return;
        }
        let to_agent = Way::new(seed).behind(self.options.header(&peer, self.mapping.ports[1], self.mode));
        let user = Party::User { peer, is_tls: self.options.users_have_tls(self.mode), from };
        self.guests.push(Guest { user, to_agent, asked: false, is_mute: false, since: Instant::now() });
    }

    /// A user has connected that will not begin its TLS handshake.
    pub fn receive_mute(&mut self, peer: Peer, from: [u8; 4]) {
        let (user, to_agent) = (Party::User { peer, is_tls: true, from }, Way::new(0));
        self.guests.push(Guest { user, to_agent, asked: false, is_mute: true, since: Instant::now() });
    }

    /// Those who have said nothing and may.
    fn silent(&self) -> Vec<usize> {
        (0..self.guests.len()).filter(|&number| !self.guests[number].asked && !self.guests[number].is_mute).collect()
    }

    /// As many users from there have an agent as may.
    fn is_full(&self, from: [u8; 4]) -> bool {
        let joined = self.sessions.iter().filter(|session| session.is_from(from)).count();
        self.options.max_users.is_some_and(|most| joined >= most)
    }

    /// A user that has said nothing yet sends its first bytes.
    pub fn ask(&mut self, user: usize, bytes: usize) {
        let silent = self.silent();
        let Some(number) = user.checked_rem(silent.len()) else { return };
        let mut guest = self.guests.remove(silent[number]);
        let message = guest.to_agent.take(bytes);
        // One that has too many sessions, or no time to wait, may be closed before it has said everything.
        let sent = guest.user.try_send(&message, PATIENCE);
        let Party::User { from, .. } = guest.user else { return };
        let is_turned_away = self.is_full(from) || (self.options.wait_time == Some(0) && self.free[0].is_empty());
        if is_turned_away {
            guest.user.peer().expect_end();
            return;
        }
        assert!(sent.expect("a connection that can be written to"), "the daemon takes nothing any more");
        guest.asked = true;
        if !self.is_eager {
            // The others have waited since they came.
            guest.since = Instant::now();
        }
        self.guests.push(guest);
    }

    /// A user that has said nothing goes.
    pub fn leave(&mut self, who: usize, reset: bool) {
        let silent = self.silent();
        let Some(number) = who.checked_rem(silent.len()) else { return };
        let peer = self.guests.remove(silent[number]).user.into_peer();
        // Without TLS a FIN may be a half-close of who is waiting for an agent.
        if reset || self.is_eager { peer.reset() } else { peer.finish() }
    }

    /// Users that wait go away: what comes takes longer than they have time.
    pub fn let_go(&mut self) {
        let (is_eager, guests) = (self.is_eager, std::mem::take(&mut self.guests));
        let (go, stay) = guests.into_iter().partition(|guest| is_eager || guest.asked);
        self.guests = stay;
        let go: Vec<Guest> = go;
        go.into_iter().for_each(|guest| guest.user.into_peer().reset());
        self.take_calls_back(Duration::ZERO);
    }

    /// Those who have called and waited for so long do not wait any longer.
    fn take_calls_back(&mut self, waited: Duration) {
        for side in [0, 1] {
            while let Some(call) = self.calls[side].iter().position(|call| call.since.elapsed() >= waited) {
                self.take_back(side, call, false);
            }
        }
    }

    /// Somebody who has called does not wait any longer. `goes`: it closes its connection instead of saying so.
    #[track_caller]
    pub fn take_back(&mut self, side: usize, call: usize, goes: bool) {
        let Some(number) = call.checked_rem(self.calls[side].len()) else { return };
        let mut call = self.calls[side].remove(number);
        if goes {
            return call.line.peer.abort();
        }
        call.line.take_back();
        self.free[side].push(Party::Framed(call.line));
    }

    /// An agent of version 1 comes. If one of the other port is not quiet yet, a caller there would get it, or that one.
    pub fn make_way(&mut self, side: usize) {
        while self.free[1 - side].iter().any(Party::is_plain) && !self.calls[1 - side].is_empty() {
            self.take_back(1 - side, 0, false);
        }
    }

    /// A free agent asks for a session, if it can.
    pub fn call(&mut self, side: usize, agent: usize, client: &[u8], seed: u64) {
        let Some(number) = agent.checked_rem(self.free[side].len()) else { return };
        match &self.free[side][number] {
            Party::Framed(line) if line.calls => {
                let Party::Framed(mut line) = self.free[side].remove(number) else { return };
                line.call(client);
                self.calls[side].push(Call { line, client: client.to_vec(), since: Instant::now() });
            }
            // Where nobody answers, somebody who comes later would.
            Party::Agent { .. } if self.free[1 - side].iter().any(Party::serves) => {
                self.join_listener(side, number, seed);
            }
            _ => {}
        }
    }

    /// The listening end of a tunnel of version 1 begins a session with one that serves.
    #[track_caller]
    fn join_listener(&mut self, side: usize, number: usize, seed: u64) {
        let mut listener = self.free[side].remove(number);
        listener.peer().send(CALL);
        let server = self.hear_open(1 - side, &[0, 0]);
        expect_word(&mut listener, HERE);
        listener.peer().send(BEGIN);
        self.begin(side, listener, server, seed);
    }

    /// The one that serves and is told of a session.
    #[track_caller]
    fn hear_open(&mut self, side: usize, client: &[u8]) -> Party {
        let (number, open) = poll(&mut self.free[side], Party::serves);
        assert!(matches!(&open, Word::Open(told) if told == client), "{open:?} of {client:?}");
        self.free[side].remove(number)
    }

    /// A session between agents: the one of `side` has begun it.
    fn begin(&mut self, side: usize, one: Party, other: Party, seed: u64) {
        let ends = if side == 0 { [one, other] } else { [other, one] };
        self.sessions.push(Session { ends, ways: [Way::new(seed << 1), Way::new(seed << 1 | 1)] });
    }

    /// Joins the first one of `side` that has called, if anybody is there. False: nobody is.
    #[track_caller]
    fn join_call(&mut self, side: usize, seed: &mut impl FnMut() -> u64) -> bool {
        let others = &self.free[1 - side];
        let (is_served, is_answered) = (others.iter().any(Party::serves), others.iter().any(Party::is_plain));
        if self.calls[side].is_empty() || !(is_served || is_answered) {
            return false;
        }
        let Call { line, client, .. } = self.calls[side].remove(0);
        let mut caller = Party::Framed(line);
        let other = if is_served {
            self.hear_open(1 - side, &client)
        } else {
            let (number, called) = poll(&mut self.free[1 - side], Party::is_plain);
            assert!(matches!(&called, Word::Payload(word) if word == CALL), "{called:?} instead of a call");
            let mut plain = self.free[1 - side].remove(number);
            plain.peer().send(HERE);
            expect_word(&mut plain, BEGIN);
            plain
        };
        let heard = caller.hear(PATIENCE);
        assert!(matches!(heard, Word::Accepted), "{heard:?} instead of ACCEPT");
        self.begin(side, caller, other, seed());
        true
    }

    /// Users that have waited for long go away, with a reset: without TLS a FIN behind what they asked is no end yet.
    pub fn give_up(&mut self) {
        let is_eager = self.is_eager;
        let waits =
            self.options.wait_time.map_or(WAITS, |seconds| Duration::from_secs(seconds).mul_f32(0.5).min(WAITS));
        let is_patient = |guest: &Guest| !(is_eager || guest.asked) || guest.since.elapsed() < waits;
        let (stay, go) = std::mem::take(&mut self.guests).into_iter().partition(is_patient);
        self.guests = stay;
        go.into_iter().for_each(|guest: Guest| guest.user.into_peer().reset());
        self.take_calls_back(WAITS);
    }

    /// A pair of version 1 is made by the daemon alone: whether one is due.
    pub fn pair_is_due(&self) -> bool {
        self.private && self.free.iter().all(|side| side.iter().any(Party::is_plain))
    }

    /// Whoever is to be joined has been; finds out to whom. Returns how many sessions have begun.
    #[track_caller]
    pub fn join(&mut self, mut seed: impl FnMut() -> u64) -> u64 {
        let before = self.sessions.len();
        if self.pair_is_due() {
            self.join_pair([Way::new(seed()), Way::new(seed())]);
        }
        while self.join_call(0, &mut seed) || self.join_call(1, &mut seed) {}
        while !self.private && self.is_due() {
            let to_user = Way::new(seed());
            if !self.join_user(to_user) {
                break;
            }
        }
        self.dismiss();
        (self.sessions.len() - before) as u64
    }

    /// Whether an agent and a user are to be joined.
    fn is_due(&self) -> bool {
        let can_be = |guest: &&Guest| matches!(guest.user, Party::User { from, .. } if !self.is_full(from));
        let mut guests = self.guests.iter().filter(can_be);
        let tells = self.options.introduces() || self.free[0].iter().any(Party::is_framed);
        !self.free[0].is_empty() && guests.any(|guest| !guest.is_mute && (tells || guest.asked))
    }

    /// Users that the daemon closes, or may close at any time, are gone.
    fn dismiss(&mut self) {
        let waits = self.options.wait_time != Some(0);
        let (is_eager, mut stay) = (self.is_eager, Vec::new());
        for guest in std::mem::take(&mut self.guests) {
            let Party::User { from, .. } = guest.user else { continue };
            if !(is_eager || guest.asked) || (waits && !self.is_full(from)) {
                stay.push(guest);
            } else {
                guest.user.into_peer().reset();
            }
        }
        self.guests = stay;
    }

    fn join_pair(&mut self, mut ways: [Way; 2]) {
        // Where there are several, the other side has had nobody until now.
        let [count, _] = [0, 1].map(|side| self.free[side].iter().filter(|agent| agent.is_plain()).count());
        let lone = if count == 1 { 0 } else { 1 };
        let speaker = self.free[lone].iter().position(Party::is_plain).expect("one of version 1");
        let speaker = self.free[lone].remove(speaker);
        speaker.peer().send(&ways[lone].take(8));
        let (number, heard) = poll(&mut self.free[1 - lone], Party::is_plain);
        let Word::Payload(bytes) = heard else { panic!("{heard:?} for a free agent") };
        ways[lone].check(&bytes);
        let partner = self.free[1 - lone].remove(number);
        let ends = if lone == 0 { [speaker, partner] } else { [partner, speaker] };
        self.sessions.push(Session { ends, ways });
    }

    /// The one free agent that hears of a user; nobody else hears anything. False: nobody is left who waits.
    #[track_caller]
    fn join_user(&mut self, to_user: Way) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for number in 0..self.free[0].len() {
                let (guest, heard) = match self.free[0][number].hear(GLANCE) {
                    Word::Silence => continue,
                    Word::Open(open) => (self.guest_of(&open), None),
                    Word::Payload(bytes) => (self.guest_saying(&bytes), Some(bytes)),
                    other => panic!("{other:?} for a free agent"),
                };
                let Guest { user, mut to_agent, .. } = self.guests.remove(guest);
                heard.into_iter().for_each(|bytes| to_agent.check(&bytes));
                let ends = [self.free[0].remove(number), user];
                self.sessions.push(Session { ends, ways: [to_user, to_agent] });
                return true;
            }
            if self.options.wait_time == Some(0) {
                self.forget_refused();
                if !self.is_due() {
                    return false;
                }
            }
        }
        panic!("nobody was joined");
    }

    /// Which user an agent was told of.
    #[track_caller]
    fn guest_of(&self, open: &[u8]) -> usize {
        let port = self.mapping.ports[1];
        let is_told_of = |guest: &Guest| self.options.open(guest.user.peer(), port, self.mode) == open;
        self.guests.iter().position(is_told_of).unwrap_or_else(|| panic!("OPEN of nobody who waits: {open:?}"))
    }

    /// Whose first bytes these are.
    #[track_caller]
    fn guest_saying(&self, bytes: &[u8]) -> usize {
        let says = |guest: &Guest| guest.to_agent.begins_with(bytes) && (guest.asked || self.options.introduces());
        let guest = self.guests.iter().position(says);
        let guest = guest.unwrap_or_else(|| panic!("{} bytes of nobody who waits", bytes.len()));
        let first = self.guests.iter().position(|guest| guest.asked);
        assert!(self.is_eager || Some(guest) == first, "joined out of turn: {guest}, not {first:?}");
        guest
    }

    /// Who may not wait, and found no agent that could be sent something, has been closed.
    fn forget_refused(&mut self) {
        let is_there = |guest: &mut Guest| match guest.user.peer().hear(GLANCE) {
            Heard::Silence => true,
            Heard::Ended(_) => false,
            other => panic!("{other:?} for a user without an agent"),
        };
        self.guests.retain_mut(is_there);
    }

    /// What nobody wanted.
    pub fn count_discarded(&mut self, bytes: u64) {
        self.past.add(2, (bytes, bytes));
    }

    /// A session is over. Its agent may serve the next one.
    #[track_caller]
    pub fn is_over(&mut self, session: Session) {
        session.ways.iter().enumerate().for_each(|(side, way)| self.past.add(side, way.moved()));
        for (side, free) in session.into_free().into_iter().enumerate() {
            self.free[side].extend(free);
        }
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
            let [calls, calls2] = [0, 1].map(|side| self.calls[side].len());
            return json!({
                "agentsport1": free + calls + joined, "agentsport2": free2 + calls2 + joined, "freeport1": free,
                "freeport2": free2,
                "joined": joined, "discarded": discarded,
            });
        }
        let (guests, waiting) = (self.guests.len(), self.guests.iter().filter(|guest| guest.asked).count());
        let mut status = json!({
            "agents": free + joined, "free": free, "joined": joined, "users": guests + joined, "discarded": discarded,
        });
        // Who waits for being introduced need not have said anything.
        if !self.is_eager {
            status["waiting"] = json!(waiting);
            status["silent"] = json!(guests - waiting);
        }
        status
    }

    /// Everybody who is connected.
    pub fn into_peers(self) -> Vec<Peer> {
        let joined = self.sessions.into_iter().flat_map(|session| session.ends);
        let guests = self.guests.into_iter().map(|guest| guest.user);
        let callers = self.calls.into_iter().flatten().map(|call| Party::Framed(call.line));
        self.free.into_iter().flatten().chain(callers).chain(guests).chain(joined).map(Party::into_peer).collect()
    }
}

/// The first of these agents that hears something, and what.
#[track_caller]
fn poll(agents: &mut [Party], is_meant: impl Fn(&Party) -> bool) -> (usize, Word) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for (number, agent) in agents.iter_mut().enumerate().filter(|(_, agent)| is_meant(agent)) {
            match agent.hear(GLANCE) {
                Word::Silence => {}
                word => return (number, word),
            }
        }
    }
    panic!("nobody was joined");
}

/// One of the words of a tunnel of version 1.
#[track_caller]
fn expect_word(agent: &mut Party, word: &[u8]) {
    let heard = agent.hear(PATIENCE);
    assert!(matches!(&heard, Word::Payload(said) if said == word), "{heard:?} of a tunnel");
}

/// An agent that is let in, and speaks in frames.
#[track_caller]
pub fn framed(peer: Peer, hello: &[u8], largest: u16, mode: Mode) -> Party {
    Party::Framed(Box::new(Line::new(peer, hello, largest, mode == Mode::Tls)))
}

/// The end that a connection without a session came to.
#[track_caller]
pub fn end_of(mut party: Party) -> End {
    loop {
        let word = party.hear(PATIENCE);
        match Party::end(&word) {
            Some(end) => return end,
            None => assert!(!matches!(word, Word::Silence | Word::Payload(_)), "{word:?} instead of the end"),
        }
    }
}
