//! The daemon and the model of it, step by step.

use super::op::{Op, Refused};
use super::pipe::{Counts, Pipe};
use super::session::{Session, Way};
use crate::harness::{Daemon, End, Heard, Mode, PATIENCE, Peer, Setup, private_mapping, public_mapping, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// Open mappings at a time.
const MAPPINGS: usize = 3;
/// The absence threshold of the mapping for agents that fall silent, in milliseconds.
const ABSENCE: u32 = 200;

/// A daemon, and what should be the case in it.
pub struct World {
    daemon: Daemon,
    pipes: Vec<Pipe>,
    /// Not let in: no byte may ever come.
    refused: Vec<Peer>,
    /// What has gone through mappings that were removed since the daemon's last start.
    past: Counts,
    seeds: Seeds,
    step: usize,
    /// Descriptors of a daemon to which nobody is connected.
    descriptors: usize,
}

/// Each stream has a seed of its own, so that nobody gets another's bytes unnoticed.
struct Seeds {
    sequence: u64,
    streams: u64,
}

impl Seeds {
    fn next(&mut self) -> u64 {
        self.streams += 1;
        (self.sequence << 16) + self.streams
    }
}

impl World {
    #[track_caller]
    pub fn new(setup: Setup) -> Self {
        let daemon = setup.start();
        let descriptors = daemon.descriptors();
        let (pipes, refused, past) = (Vec::new(), Vec::new(), Counts::default());
        Self { daemon, pipes, refused, past, seeds: Seeds { sequence: 0, streams: 0 }, step: 0, descriptors }
    }

    /// The step at which it is.
    pub fn step(&self) -> usize {
        self.step
    }

    pub fn resident_kib(&self) -> u64 {
        self.daemon.resident_kib()
    }

    /// One sequence, and back to where it began.
    #[track_caller]
    pub fn play(&mut self, seed: u64, ops: &[Op]) {
        self.seeds = Seeds { sequence: seed, streams: 0 };
        for (step, op) in ops.iter().enumerate() {
            self.step = step + 1;
            self.pipes.iter_mut().for_each(Pipe::give_up);
            self.act(*op);
            self.pipes.iter().for_each(|pipe| self.expect_status(pipe));
        }
        self.step = ops.len() + 1;
        self.clear();
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Add { private, places } => self.add(private, places),
            Op::Remove { mapping } => self.remove(mapping),
            Op::Agent { mapping, side, pieces, narrow } => self.agent(mapping, side, pieces, narrow),
            Op::Refused { mapping, side, how } => self.refuse(mapping, side, how),
            Op::User { mapping, narrow } => self.user(mapping, narrow),
            Op::Ask { mapping, user, bytes } => self.ask(mapping, user, bytes),
            Op::Leave { mapping, side, who, reset } => self.leave(mapping, side, who, reset),
            Op::Discarded { mapping, side, agent, bytes } => self.discarded(mapping, side, agent, bytes),
            Op::Beat { mapping, side, agent } => self.beat(mapping, side, agent),
            Op::Send { session, from, bytes, pieces } => self.with(session, |it| it.send(from, bytes, pieces)),
            Op::Receive { session, from } => self.with(session, |it| it.receive(from)),
            Op::BeatJoined { session, side } => self.with(session, |it| it.beat(side)),
            Op::Stall { session, from } => self.with(session, |it| it.stall(from)),
            Op::Finish { session, side, last } => self.finish(session, side, last),
            Op::Reset { session, side } => self.reset(session, side),
            Op::Absence => self.absence(),
            Op::Reload => self.reload(),
            Op::Restart => self.restart(false),
            Op::Kill => self.restart(true),
        }
    }

    fn add(&mut self, private: bool, places: usize) {
        if self.pipes.len() < MAPPINGS {
            let json = if private { private_mapping(places as u32, 0) } else { public_mapping(places as u32, 0) };
            self.pipes.push(Pipe::new(self.daemon.add(&json), private, places));
        }
    }

    /// The mapping goes, and with it every connection.
    fn remove(&mut self, mapping: usize) {
        let Some(number) = mapping.checked_rem(self.pipes.len()) else { return };
        let pipe = self.pipes.remove(number);
        let (counts, status) = (pipe.counts(), self.status(&pipe.mapping.id));
        assert!(counts.agrees(&status), "{counts:?} against {status}");
        self.past = self.past.plus(counts);
        self.daemon.controller().remove(&pipe.mapping);
        for peer in pipe.into_peers() {
            peer.expect_end_at_last(PATIENCE);
        }
    }

    fn agent(&mut self, mapping: usize, side: usize, pieces: usize, narrow: bool) {
        let Self { daemon, pipes, .. } = self;
        let Some(number) = mapping.checked_rem(pipes.len()) else { return };
        let pipe = &mut pipes[number];
        let side = pipe.agent_side(side);
        let agent = connect(daemon, pipe.mapping.ports[side], narrow);
        let passcode = pipe.mapping.passcodes[side].as_bytes();
        for piece in passcode.chunks(passcode.len().div_ceil(pieces)) {
            agent.send(piece);
        }
        if !pipe.has_place(side) {
            agent.expect_end();
            return;
        }
        agent.expect_message(b"AUTHORIZED");
        pipe.free[side].push(agent);
        self.join(number);
    }

    /// An agent that is not let in, and is not told why.
    fn refuse(&mut self, mapping: usize, side: usize, how: Refused) {
        // Each from an address of its own: what an address pays for earlier failures is not of interest here.
        let address = [127, 1 + (self.refused.len() % 200) as u8, (self.seeds.sequence % 250) as u8, self.step as u8];
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        let side = pipe.agent_side(side);
        let dial = self.daemon.dial(pipe.mapping.ports[side]).from(address);
        let passcode = &pipe.mapping.passcodes[side];
        if let Refused::Garbage = how {
            return dial.without_tls().connect().expect("a connection").send(&[0xff; 64]);
        }
        let peer = dial.connect().expect("a connection");
        match how {
            Refused::WrongPasscode => peer.send("x".repeat(passcode.len()).as_bytes()),
            Refused::ShortPasscode => {
                peer.send(&passcode.as_bytes()[1..]);
                peer.finish();
            }
            Refused::Silence | Refused::Garbage => {}
        }
        self.refused.push(peer);
    }

    /// A user that says nothing yet.
    fn user(&mut self, mapping: usize, narrow: bool) {
        let Self { daemon, pipes, .. } = self;
        if let Some(pipe) = pick(pipes, mapping).filter(|pipe| !pipe.private) {
            pipe.silent.push(connect(daemon, pipe.mapping.ports[1], narrow));
        }
    }

    /// A silent user sends its first bytes.
    fn ask(&mut self, mapping: usize, user: usize, bytes: usize) {
        let Some(number) = mapping.checked_rem(self.pipes.len()) else { return };
        let pipe = &mut self.pipes[number];
        let Some(user) = user.checked_rem(pipe.silent.len()) else { return };
        let user = pipe.silent.remove(user);
        let mut way = Way::new(self.seeds.next());
        user.send(&way.take(bytes));
        pipe.wait(user, way);
        self.join(number);
    }

    fn join(&mut self, number: usize) {
        if self.pipes[number].pair_is_due() {
            let (id, joined) = (&self.pipes[number].mapping.id, self.pipes[number].sessions.len() + 1);
            wait_until("a pair is made", PATIENCE, || self.status(id)["joined"] == joined);
        }
        self.pipes[number].join(self.daemon.mode, || self.seeds.next());
    }

    /// A silent user or a free agent goes.
    fn leave(&mut self, mapping: usize, side: usize, who: usize, reset: bool) {
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        let from = if side == 1 && !pipe.private { &mut pipe.silent } else { &mut pipe.free[side] };
        let Some(number) = who.checked_rem(from.len()) else { return };
        let peer = from.remove(number);
        if reset { peer.reset() } else { peer.finish() }
    }

    /// A free agent sends what nobody wants.
    fn discarded(&mut self, mapping: usize, side: usize, agent: usize, bytes: usize) {
        let Self { seeds, pipes, .. } = self;
        let Some(pipe) = pick(pipes, mapping) else { return };
        if let Some(agent) = pick(&mut pipe.free[side], agent) {
            agent.send(&Way::new(seeds.next()).take(bytes));
            pipe.count_discarded(bytes as u64);
        }
    }

    fn beat(&mut self, mapping: usize, side: usize, agent: usize) {
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        if let Some(agent) = pick(&mut pipe.free[side], agent) {
            agent.send(b"BEAT");
            agent.expect(b"BEAT");
        }
    }

    fn with(&mut self, session: usize, act: impl FnOnce(&mut Session)) {
        let mut sessions: Vec<&mut Session> = self.pipes.iter_mut().flat_map(|pipe| &mut pipe.sessions).collect();
        if let Some(session) = pick(&mut sessions, session) {
            act(session);
        }
    }

    /// A session leaves the model, and its bytes are counted when `end` is done with it.
    fn end(&mut self, session: usize, end: impl FnOnce(&mut Session, Mode, bool)) {
        let count: usize = self.pipes.iter().map(|pipe| pipe.sessions.len()).sum();
        let Some(mut number) = session.checked_rem(count) else { return };
        for pipe in &mut self.pipes {
            if number < pipe.sessions.len() {
                let mut session = pipe.sessions.remove(number);
                end(&mut session, self.daemon.mode, pipe.somebody_waits());
                pipe.count(&session);
                return;
            }
            number -= pipe.sessions.len();
        }
    }

    fn finish(&mut self, session: usize, side: usize, last: usize) {
        self.end(session, |session, mode, contended| {
            session.receive(side);
            session.ends[side].finish();
            if session.agents[side] || mode == Mode::Tls {
                return session.expect_whole(side);
            }
            // Without TLS a user may close its sending side and still wait for its answer, unless others wait.
            if !contended {
                session.send(0, last, 1);
                session.receive(0);
            }
            session.ends[0].finish();
            let end = session.end_of(1);
            assert!(contended || end == End::Clean, "{end:?} behind a whole answer");
        });
    }

    fn reset(&mut self, session: usize, side: usize) {
        self.end(session, |session, _, _| {
            session.ends[side].abort();
            session.expect_broken(side);
        });
    }

    /// An agent that falls silent, at a mapping of its own.
    fn absence(&mut self) {
        let mapping = self.daemon.add(&public_mapping(1, ABSENCE));
        self.daemon.agent(&mapping).expect_end();
        self.daemon.controller().remove(&mapping);
    }

    /// Other settings, and nobody who is connected notices.
    fn reload(&mut self) {
        let file = self.daemon.path("connector.conf");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        let keys = settings.as_object_mut().expect("an object");
        if keys.remove("controllers").is_none() {
            keys.insert("controllers".to_owned(), json!(["127.0.0.0/8"]));
        }
        fs::write(file, settings.to_string()).expect("a file");
        let before = self.daemon.log().len();
        self.daemon.signal(libc::SIGHUP);
        wait_until("it has reloaded", PATIENCE, || self.daemon.log()[before..].contains("Reloaded"));
    }

    /// All connections end, all mappings stay.
    fn restart(&mut self, kill: bool) {
        if kill {
            self.daemon.kill();
        } else {
            assert!(self.daemon.terminate().success(), "{}", self.daemon.log());
        }
        self.refused.clear();
        self.past = Counts::default();
        self.pipes.iter_mut().for_each(|pipe| *pipe = pipe.afresh());
        self.daemon.start();
        assert_eq!(self.status("all")["mappings"], self.pipes.len());
    }

    /// Everybody goes, and nothing is left behind.
    fn clear(&mut self) {
        while !self.pipes.is_empty() {
            self.remove(0);
        }
        for peer in self.refused.drain(..) {
            let heard = peer.hear(Duration::from_millis(1));
            assert!(!matches!(heard, Heard::Message(_)), "{heard:?} for one that was not let in");
        }
        let mut status = Value::Null;
        wait_until("nothing is left", PATIENCE, || {
            status = self.status("all");
            ["mappings", "connections", "buffers", "agents", "users", "unauthorized"].iter().all(|key| status[key] == 0)
        });
        assert!(self.past.agrees(&status), "{:?} against {status}", self.past);
        wait_until("no descriptor is left", PATIENCE, || self.daemon.descriptors() <= self.descriptors);
    }

    fn status(&self, id: &str) -> Value {
        self.daemon.controller().status(id)
    }

    /// Waits until the daemon counts what the model counts.
    #[track_caller]
    fn expect_status(&self, pipe: &Pipe) {
        let expected = pipe.status();
        let mut status = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        while !expected.as_object().expect("an object").iter().all(|(key, value)| status[key] == *value) {
            assert!(Instant::now() < deadline, "expected {expected}, the daemon has {status}");
            status = self.status(&pipe.mapping.id);
        }
        assert!(pipe.counts().agrees(&status), "{:?} against {status}", pipe.counts());
    }
}

fn connect(daemon: &Daemon, port: u16, narrow: bool) -> Peer {
    let dial = daemon.dial(port);
    let dial = if narrow { dial.small_buffers() } else { dial };
    dial.connect().expect("a connection")
}

/// The one that `number` means, if there are any.
fn pick<T>(of: &mut [T], number: usize) -> Option<&mut T> {
    of.get_mut(number.checked_rem(of.len())?)
}
