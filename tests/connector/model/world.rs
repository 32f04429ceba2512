//! The daemon and the model of it, step by step.

use super::line;
use super::op::{Client, Op, Refused, Version};
use super::options::{ADDRESSES, Options};
use super::party::Party;
use super::pipe::{self, Counts, Pipe};
use super::session::{Session, Way};
use crate::harness::{
    Daemon, End, Heard, Mapping, PATIENCE, Peer, Setup, form, private_mapping, public_mapping, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// Open mappings at a time.
const MAPPINGS: usize = 3;
/// The absence threshold of the mapping for agents that fall silent, in milliseconds.
const ABSENCE: u32 = 200;
/// When nobody is connected any more, the metrics are as they stay.
const SETTLED: Duration = Duration::from_secs(2);

/// A daemon, and what should be the case in it.
pub struct World {
    daemon: Daemon,
    pipes: Vec<Pipe>,
    /// Not let in: no byte may ever come.
    refused: Vec<Peer>,
    /// What has gone through mappings that were removed since the daemon's last start.
    past: Counts,
    /// Sessions that have begun since then, and agents that were let in.
    begun: u64,
    authorized: u64,
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
        let (begun, authorized, seeds) = (0, 0, Seeds { sequence: 0, streams: 0 });
        Self { daemon, pipes, refused, past, begun, authorized, seeds, step: 0, descriptors }
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
            Op::Add { private, places, options } => self.add(private, places, options),
            Op::Remove { mapping } => self.remove(mapping),
            Op::Agent { mapping, side, pieces, narrow, version } => self.agent(mapping, side, pieces, narrow, version),
            Op::Refused { mapping, side, how } => self.refuse(mapping, side, how),
            Op::User { mapping, from, narrow, mute } => self.user(mapping, ADDRESSES[from], narrow, mute),
            Op::Ask { mapping, user, bytes } => self.at(mapping, |pipe, _| pipe.ask(user, bytes)),
            Op::Leave { mapping, side, who, reset } => self.leave(mapping, side, who, reset),
            Op::Discarded { mapping, side, agent, bytes } => self.discarded(mapping, side, agent, bytes),
            Op::Beat { mapping, side, agent } => self.beat(mapping, side, agent),
            Op::Call { mapping, side, agent, client } => self.call(mapping, side, agent, client),
            Op::TakeBack { mapping, side, call, goes } => {
                self.at(mapping, |pipe, _| pipe.take_back(side, call, goes));
            }
            Op::Wrong { mapping, side, agent, what } => {
                self.dismiss(mapping, side, agent, |mut line| {
                    line.say_wrong(what);
                    let _ = line.peer.try_send(&[], PATIENCE);
                    pipe::end_of(Party::Framed(line));
                });
            }
            Op::Bye { mapping, side, agent } => {
                self.dismiss(mapping, side, agent, |mut line| {
                    line.bye();
                    line.expect_farewell();
                });
            }
            Op::ByeJoined { session } => self.with(session, |it, _| it.bye()),
            Op::Send { session, from, bytes, pieces } => self.with(session, |it, _| it.send(from, bytes, pieces)),
            Op::Receive { session, from } => self.with(session, |it, _| it.receive(from)),
            Op::BeatJoined { session, side } => self.with(session, |it, seed| it.beat(side, seed)),
            Op::Stall { session, from } => self.with(session, |it, _| it.stall(from)),
            Op::Finish { session, side, last } => {
                self.end(session, |session, contended, _| session.finish(side, last, contended));
            }
            Op::Break { session, side, how } => {
                self.end(session, |session, contended, seed| session.break_off(side, how, contended, seed));
            }
            Op::Absence { framed } => self.absence(framed),
            Op::Idle { framed } => self.idle(framed),
            Op::Reload => self.reload(),
            Op::Restart => self.restart(false),
            Op::Kill => self.restart(true),
        }
    }

    fn add(&mut self, private: bool, places: usize, options: Options) {
        if self.pipes.len() >= MAPPINGS {
            return;
        }
        let options = if private { options.without_users() } else { options };
        let mut json = if private { private_mapping(places as u32, 0) } else { public_mapping(places as u32, 0) };
        let name = format!("name-{}", self.seeds.next());
        let last = self.daemon.ports.mappings().1;
        let ports = options.fixed.map(|pair| [last - 2 * pair, last - 2 * pair - 1]);
        options.add_to(&mut json, &name, ports);
        let is_taken = |pipe: &Pipe| ports.into_iter().flatten().any(|port| pipe.mapping.ports.contains(&port));
        if self.pipes.iter().any(is_taken) {
            let answer = self.daemon.controller().post("/api/v2/mapping/add", &form("mapping", &json.to_string()));
            return assert_eq!(answer.status, 409, "{answer:?}");
        }
        let mut mapping = self.daemon.add(&json);
        ports.into_iter().for_each(|ports| assert_eq!(mapping.ports, ports, "the ports that were asked for"));
        if options.named {
            // A name is as good as an id.
            mapping.id = name;
        }
        self.pipes.push(Pipe::new(mapping, private, places, options, self.daemon.mode));
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

    fn agent(&mut self, mapping: usize, side: usize, pieces: usize, narrow: bool, version: Version) {
        let token = self.seeds.next();
        let Self { daemon, pipes, .. } = self;
        let Some(number) = mapping.checked_rem(pipes.len()) else { return };
        let pipe = &mut pipes[number];
        let side = pipe.agent_side(side);
        let version = match version {
            // Whoever waits would get what comes of the hello later.
            Version::Late { .. } if !pipe.guests.is_empty() || pipe.has_others(side) => Version::One,
            _ => version,
        };
        if !matches!(version, Version::Two { .. }) {
            pipe.make_way(side);
        }
        let peer = connect(daemon, pipe.mapping.ports[side], narrow);
        let passcode = pipe.mapping.passcodes[side].as_bytes();
        let hello = match version {
            Version::One => Vec::new(),
            Version::Two { largest, calls } => line::hello(calls && pipe.private, largest, token),
            Version::Late { .. } => line::hello(false, 65_532, token),
        };
        let at = if let Version::Late { at } = version { at } else { hello.len() };
        let mut messages: Vec<Vec<u8>> = passcode.chunks(passcode.len().div_ceil(pieces)).map(<[u8]>::to_vec).collect();
        messages.last_mut().expect("a passcode").extend(&hello[..at]);
        messages.iter().for_each(|piece| peer.send(piece));
        if !pipe.has_place(side) {
            peer.expect_end();
            return;
        }
        self.authorized += 1;
        if let Version::Two { largest, .. } = version {
            pipe.welcome(pipe::framed(peer, &hello, largest, daemon.mode), side);
        } else {
            peer.expect_message(b"AUTHORIZED");
            if at < hello.len() {
                peer.send(&hello[at..]);
                pipe.count_discarded(hello.len() as u64);
            }
            pipe.welcome(Party::Agent { peer, mode: daemon.mode }, side);
        }
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
            Refused::WrongPasscodeAndHello => {
                peer.send(&["x".repeat(passcode.len()).as_bytes(), &line::hello(false, 65_532, 1)].concat());
            }
            Refused::ShortPasscode => {
                peer.send(&passcode.as_bytes()[1..]);
                peer.finish();
            }
            Refused::Silence | Refused::Garbage => {}
        }
        self.refused.push(peer);
    }

    /// A user that says nothing yet.
    fn user(&mut self, mapping: usize, from: [u8; 4], narrow: bool, mute: bool) {
        let mode = self.daemon.mode;
        let Self { daemon, pipes, .. } = self;
        let Some(pipe) = pick(pipes, mapping).filter(|pipe| !pipe.private) else { return };
        let has_tls = pipe.options.users_have_tls(mode);
        let is_mute = mute && has_tls;
        let dial = daemon.dial(pipe.mapping.ports[1]).from(from);
        let dial = if has_tls && !is_mute { dial } else { dial.without_tls() };
        let user = if narrow { dial.small_buffers().connect() } else { dial.connect() };
        if !pipe.options.allows(from) {
            if let Ok(user) = user {
                user.expect_end();
            }
            return;
        }
        let user = user.expect("a connection");
        self.at(
            mapping,
            |pipe, seed| {
                if is_mute { pipe.receive_mute(user, from) } else { pipe.receive(user, from, seed) }
            },
        );
    }

    /// Something happens to a mapping, and whoever is to be joined then is.
    fn at(&mut self, mapping: usize, act: impl FnOnce(&mut Pipe, u64)) {
        let Some(number) = mapping.checked_rem(self.pipes.len()) else { return };
        act(&mut self.pipes[number], self.seeds.next());
        self.join(number);
    }

    fn join(&mut self, number: usize) {
        if self.pipes[number].pair_is_due() {
            let (id, joined) = (&self.pipes[number].mapping.id, self.pipes[number].sessions.len() + 1);
            wait_until("a pair is made", PATIENCE, || self.status(id)["joined"] == joined);
        }
        self.begun += self.pipes[number].join(|| self.seeds.next());
    }

    /// A silent user or a free agent goes.
    fn leave(&mut self, mapping: usize, side: usize, who: usize, reset: bool) {
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        if side == 1 && !pipe.private {
            return pipe.leave(who, reset);
        }
        let Some(number) = who.checked_rem(pipe.free[side].len()) else { return };
        let peer = pipe.free[side].remove(number).into_peer();
        if reset { peer.reset() } else { peer.finish() }
    }

    /// A free agent sends what nobody wants.
    fn discarded(&mut self, mapping: usize, side: usize, agent: usize, bytes: usize) {
        let Self { seeds, pipes, .. } = self;
        let Some(pipe) = pick(pipes, mapping) else { return };
        let has_server = pipe.private && pipe.free[1 - side].iter().any(Party::serves);
        match pick(&mut pipe.free[side], agent) {
            Some(Party::Framed(line)) => line.say_late(seeds.next()),
            // It would be a session's beginning, if this agent counts as quiet.
            Some(_) if has_server => {}
            Some(agent) => {
                agent.peer().send(&Way::new(seeds.next()).take(bytes));
                pipe.count_discarded(bytes as u64);
            }
            None => {}
        }
    }

    fn beat(&mut self, mapping: usize, side: usize, agent: usize) {
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        if let Some(agent) = pick(&mut pipe.free[side], agent) {
            agent.beat();
        }
    }

    /// A free agent of version 2 goes in a way of its own.
    fn dismiss(&mut self, mapping: usize, side: usize, agent: usize, act: impl FnOnce(Box<line::Line>)) {
        let Some(pipe) = pick(&mut self.pipes, mapping) else { return };
        let free = &mut pipe.free[pipe.agent_side(side)];
        let Some(number) = agent.checked_rem(free.len()) else { return };
        if free[number].is_framed() {
            let Party::Framed(line) = free.remove(number) else { return };
            act(line);
        }
    }

    /// A free agent of a private pipe asks for a session.
    fn call(&mut self, mapping: usize, side: usize, agent: usize, client: Client) {
        let Some(pipe) = pick(&mut self.pipes, mapping).filter(|pipe| pipe.private) else { return };
        let (seed, before) = (self.seeds.next(), pipe.sessions.len());
        let port = (seed as u16).to_be_bytes();
        let client = match client {
            Client::Unnamed => vec![0, 0],
            Client::Ipv4 => [&[4, 0, 192, 0, 2, 7], &port[..], &[127, 0, 0, 1, 0, 80]].concat(),
            Client::Ipv6 => [&[6, 0], &[0x20; 16][..], &port, &[0x30; 16], &[0, 80]].concat(),
        };
        pipe.call(side, agent, &client, seed);
        self.begun += (pipe.sessions.len() - before) as u64;
        self.at(mapping, |_, _| {});
    }

    fn with(&mut self, session: usize, act: impl FnOnce(&mut Session, u64)) {
        let mut sessions: Vec<&mut Session> = self.pipes.iter_mut().flat_map(|pipe| &mut pipe.sessions).collect();
        if let Some(session) = pick(&mut sessions, session) {
            act(session, self.seeds.next());
        }
    }

    /// A session leaves the model, and its bytes are counted when `end` is done with it.
    fn end(&mut self, session: usize, end: impl FnOnce(&mut Session, bool, u64)) {
        let count: usize = self.pipes.iter().map(|pipe| pipe.sessions.len()).sum();
        let Some(mut session) = session.checked_rem(count) else { return };
        let seed = self.seeds.next();
        let has_it = |pipe: &Pipe| match session.checked_sub(pipe.sessions.len()) {
            None => true,
            Some(left) => {
                session = left;
                false
            }
        };
        let Some(number) = self.pipes.iter().position(has_it) else { return };
        let pipe = &mut self.pipes[number];
        let mut session = pipe.sessions.remove(session);
        end(&mut session, pipe.somebody_waits(), seed);
        pipe.is_over(session);
        self.join(number);
    }

    /// An agent that falls silent, at a mapping of its own.
    fn absence(&mut self, framed: bool) {
        let mapping = self.daemon.add(&public_mapping(1, ABSENCE));
        pipe::end_of(self.lone_agent(&mapping, framed));
        self.daemon.controller().remove(&mapping);
    }

    /// A session in which nothing moves, at a mapping of its own: both sides are told that it was broken off.
    fn idle(&mut self, framed: bool) {
        self.pipes.iter_mut().for_each(Pipe::let_go);
        let mut json = public_mapping(1, 0);
        json["idletimeout"] = json!(1);
        let mapping = self.daemon.add(&json);
        let mut agent = self.lone_agent(&mapping, framed);
        let user = self.daemon.user(&mapping);
        user.send(b"hello");
        let mut heard = Vec::new();
        while heard != b"hello" {
            match agent.hear(PATIENCE) {
                line::Word::Payload(bytes) => heard.extend(bytes),
                line::Word::Open(_) if framed => {}
                other => panic!("{other:?} instead of what the user has said"),
            }
        }
        self.begun += 1;
        self.past.add(1, (5, 5));
        assert_ne!(user.expect_end(), End::Clean, "of an idle session");
        let end = loop {
            let word = agent.hear(PATIENCE);
            match Party::end(&word) {
                Some(end) => break end,
                None => assert!(matches!(word, line::Word::Open(_)), "{word:?} instead of the end"),
            }
        };
        assert_ne!(end, End::Clean, "of an idle session");
        if let Party::Framed(line) = &mut agent {
            line.reset();
            agent.beat();
        }
        self.daemon.controller().remove(&mapping);
    }

    fn lone_agent(&mut self, mapping: &Mapping, framed: bool) -> Party {
        self.authorized += 1;
        if !framed {
            return Party::Agent { peer: self.daemon.agent(mapping), mode: self.daemon.mode };
        }
        let peer = self.daemon.stranger(mapping, 0);
        let hello = line::hello(false, 65_532, self.seeds.next());
        peer.send(&[mapping.passcodes[0].as_bytes(), &hello].concat());
        pipe::framed(peer, &hello, 65_532, self.daemon.mode)
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
        (self.begun, self.authorized) = (0, 0);
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
        let mut metrics = (0.0, 0.0, 0.0, 0.0);
        let expected = [self.begun, self.authorized].map(|count| count as f64);
        let expected = (expected[0], expected[0], expected[1], expected[1]);
        let deadline = Instant::now() + SETTLED;
        while metrics != expected {
            assert!(Instant::now() < deadline, "sessions and agents begun and ended: {metrics:?}, not {expected:?}");
            let now = self.daemon.controller().metrics();
            metrics = (
                now.get("sessions_total"),
                now.sum("sessions_ended_total"),
                now.get("agents_authorized_total"),
                now.sum("agents_lost_total"),
            );
        }
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
