//! The API port, in front of tiny_http.
//!
//! tiny_http parses HTTP and nothing else: it would give every connection a thread and wait for ever. So it
//! listens on a private Unix socket, and only this file connects to it: once for every request, when that is
//! whole, of bounded size, and came in bounded time ([`super::request`]). The request carries the real caller's
//! address under a seal that only this process can make; the control thread refuses what lacks it.

use super::queue::Ticket;
use super::refusal::Refusal;
use super::request::{Collector, Step};
use super::seal::{Peer, Seal};
use super::state::State;
use super::{Relay, Topic};
use crate::cidr::may_call;
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{ANSWER_RATE, API_CONNECTIONS, GREETING, KEEP_ALIVE, REQUEST_TIME};
use crate::net::authority;
use crate::net::closing::{Closing, Progress};
use crate::net::link::{Fault, Got, Link};
use crate::net::pump::{End, Then, pump};
use crate::net::reactor::{Key, Socket};
use crate::net::stream::Stream;
use crate::network::Network;
use crate::throttle::and_more;
use log::warn;
use mio::net::{TcpStream, UnixStream};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Messages of one Controller that are read in one turn.
const READS: usize = 8;
/// Bytes of one plain read.
const READ: usize = 16 * 1024;
/// What a client that asks first is told.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The way to the HTTP parser, which is open to nobody else.
pub struct Front {
    /// The socket has no name any more; this is how it is found.
    door: File,
    /// Shows the control thread that a request came through here.
    seal: Seal,
}

/// A Controller's connection.
pub(super) struct Api {
    peer: Peer,
    collector: Collector,
    phase: Phase,
    /// When the first byte of a request that is not complete was found: behind an answer, once that has been taken.
    partial: Option<Instant>,
    /// Its place among all of them, in the order in which their last request was complete or they were made.
    ticket: Ticket,
    /// Its address is not in `controllers`: the answer to its request is that, and its place is among its like.
    outsider: bool,
    made: Instant,
    /// When a request was complete; then, how far its answer has come at [`ANSWER_RATE`].
    active: Instant,
}

/// A Controller's connection reads one request, and nothing more until that is answered.
enum Phase {
    Reading,
    /// `rest`: what of the request the backend has not taken yet. `last`: no request will follow.
    Asking {
        backend: Key,
        rest: Vec<u8>,
        last: bool,
    },
    /// Counted until it is gone: who never closes takes no other connection's place.
    Closing(Closing),
}

/// Our connection to the HTTP parser, for one request of one Controller's connection.
pub(super) struct Backend {
    pub(super) client: Key,
}

impl Front {
    /// Makes the private socket. tiny_http gets the listener.
    ///
    /// The socket is bound in a folder of its own and its name removed at once: it can only be reached through a
    /// descriptor of this process. Errors: no temporary folder can be written to.
    pub fn new() -> io::Result<(Self, UnixListener)> {
        let places = [std::env::temp_dir(), PathBuf::from("/run"), PathBuf::from("/dev/shm")];
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let folder = place.join(format!("iofog-connector-{}", uuid::Uuid::new_v4().simple()));
            match Self::bind_in(&folder) {
                Ok(made) => return Ok(made),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn bind_in(folder: &Path) -> io::Result<(Self, UnixListener)> {
        DirBuilder::new().mode(0o700).create(folder)?;
        let name = folder.join("http");
        let made = UnixListener::bind(&name).and_then(|listener| {
            // Not by OpenOptions: musl counts O_PATH among the access modes, and those it does not pass on.
            let door = open(&name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?.into();
            Ok((Self { door, seal: Seal::random() }, listener))
        });
        let removed = fs::remove_dir_all(folder);
        let made = made?;
        removed?;
        Ok(made)
    }

    /// The seal that every request from here carries.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.door.as_raw_fd()))
    }
}

impl Api {
    fn new(peer: Peer, ticket: Ticket, outsider: bool, now: Instant) -> Self {
        let collector = Collector::default();
        Self { peer, collector, phase: Phase::Reading, partial: None, ticket, outsider, made: now, active: now }
    }

    pub(super) fn deadline(&self, link: &Link) -> Instant {
        match (&self.phase, self.partial) {
            (Phase::Closing(closing), _) => closing.deadline(link),
            _ if !link.is_open() => self.made + GREETING,
            (_, Some(since)) => since + REQUEST_TIME,
            (_, None) => self.active + KEEP_ALIVE,
        }
    }

    /// The lower, the sooner it goes when there are too many: who is being answered stays longest.
    fn rank(&self) -> u8 {
        match self.phase {
            Phase::Closing(_) => 0,
            Phase::Reading => 1,
            Phase::Asking { .. } => 2,
        }
    }

    /// So many bytes of the answer went through: that much time they are worth, and no more.
    fn note_taken(&mut self, bytes: u64, now: Instant) {
        let worth = Duration::from_millis(bytes.saturating_mul(1000) / ANSWER_RATE);
        self.active = (self.active + worth).min(now);
    }

    /// The last answer has arrived.
    pub(super) fn has_delivered(&self, link: &Link) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.has_delivered(link))
    }

    /// No request is on its way to its answer.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Reading)
    }
}

/// What is to be done with a Controller's connection after its turn.
enum Next {
    Wait,
    Again,
    /// What it gets is on its way; then close.
    Close,
    /// It has left.
    Drop,
}

impl Relay {
    pub(super) fn take_in_controller(&mut self, stream: TcpStream, peer: SocketAddr) {
        let outsider = !may_call(self.setup.controllers.as_deref(), peer.ip());
        if outsider && !self.admit_outsider(peer.ip()) {
            return;
        }
        if !outsider && self.controllers.len() >= API_CONNECTIONS {
            self.push_out_controller();
        }
        let Ok(local) = stream.local_addr() else { return };
        let Some(link) = self.controller_link(stream, peer) else { return };
        self.enter(link, |relay, key| {
            let ticket = match outsider {
                true => relay.outsiders.join(key, peer.ip()),
                false => relay.controllers.join(key),
            };
            Some(State::Api(Box::new(Api::new(Peer::of(peer, local), ticket, outsider, relay.reactor.now))))
        });
    }

    /// Makes room: the one that has gone longest without a complete request goes.
    fn push_out_controller(&mut self) {
        let member = |(age, key)| match self.reactor.get(key) {
            Some(Socket { link, state: State::Api(api), .. }) => {
                Some((Network::of(link.peer.ip()), Candidate { rank: api.rank(), age, key }))
            }
            _ => None,
        };
        let members = self.controllers.iter().enumerate().filter_map(member).collect();
        let Some(&key) = first_to_go(members, 1).first() else { return };
        let Some(peer) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        if let Some(unsaid) = self.listeners.pushed_out.may_say(self.reactor.now) {
            let more = and_more(unsaid);
            warn!("{API_CONNECTIONS} API connections: the idlest one, from {peer}, is closed for a new one{more}");
        }
        self.drop_controller(key);
    }

    /// Its request did not come in time, nor another one for long, or it takes nothing of its answer.
    pub(super) fn controller_is_late(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Api(api) = &socket.state else { return };
        if !api.is_idle() {
            return self.drop_controller(key);
        }
        if api.partial.is_some() && socket.link.is_open() {
            // It is closed in any case.
            let _ = socket.link.send(&Refusal::timed_out().to_bytes(), desk, now);
        }
        self.close_controller(key);
    }

    /// Reads requests, hands on those that are complete.
    pub(super) fn serve_controller(&mut self, key: Key) {
        match self.read_requests(key) {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.reactor.again(key),
            Ok(Next::Close) => self.close_controller(key),
            Ok(Next::Drop) => self.drop_controller(key),
            Err(fault) => {
                self.log_refused_certificate(key, &fault);
                self.drop_controller(key);
            }
        }
    }

    /// A client without the right certificate has been told so by TLS; people are told here.
    fn log_refused_certificate(&mut self, key: Key, fault: &Fault) {
        let Some((reason, cause)) = authority::refusal(fault) else { return };
        let Some(ip) = self.reactor.get(key).map(|socket| socket.link.peer.ip()) else { return };
        if let Some(unsaid) = self.log.may_say(Topic::Refusal(Network::of(ip), reason), self.reactor.now) {
            warn!("API connection from {ip} refused: {reason}{cause}{}", and_more(unsaid));
        }
    }

    fn read_requests(&mut self, key: Key) -> Result<Next, Fault> {
        let now = self.reactor.now;
        for _ in 0..READS {
            let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Next::Wait) };
            let State::Api(api) = &mut socket.state else { return Ok(Next::Wait) };
            if let Phase::Closing(_) = api.phase {
                return Ok(Next::Close);
            }
            let flushed = socket.link.flush(&mut desk.pool, now)?;
            if let Phase::Asking { backend, .. } = api.phase {
                self.ask_further(key)?;
                // There may be room for more of the answer.
                self.reactor.again_if(backend, |socket| flushed && socket.link.may_read());
                return Ok(Next::Wait);
            }
            if !flushed || !socket.link.handshake(desk, now)? {
                return Ok(Next::Wait);
            }
            if !api.outsider {
                socket.link.trust();
            }
            match api.collector.next(&self.setup.front.seal, &api.peer) {
                // Empty lines behind a request are no beginning of another.
                Step::Incomplete if api.collector.is_empty() => {}
                Step::Incomplete => drop(api.partial.get_or_insert(now)),
                Step::Continue => socket.link.send(CONTINUE, desk, now)?,
                Step::Refuse(refusal) => {
                    socket.link.send(&refusal.to_bytes(), desk, now)?;
                    return Ok(Next::Close);
                }
                Step::Request { .. } if api.outsider => {
                    let refusal = Refusal::not_a_controller(api.peer.ip);
                    socket.link.send(&refusal.to_bytes(), desk, now)?;
                    return Ok(Next::Close);
                }
                Step::Request { bytes, last } => {
                    self.ask(key, bytes, last)?;
                    continue;
                }
            }
            match self.collect(key)? {
                Got::Some => {}
                // The API has a buffer for each of its connections.
                Got::Dry | Got::Starved => return Ok(Next::Wait),
                Got::End => return Ok(Next::Drop),
            }
        }
        Ok(Next::Again)
    }

    /// Reads once into the collector. `Some`: something came, or may come at once.
    fn collect(&mut self, key: Key) -> Result<Got, Fault> {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Got::End) };
        let State::Api(api) = &mut socket.state else { return Ok(Got::End) };
        let collector = &mut api.collector;
        let mut came = false;
        let got = socket.link.receive(READ, desk, now, |bytes| {
            collector.push(bytes);
            came = true;
        })?;
        if came {
            return Ok(Got::Some);
        }
        Ok(got)
    }

    /// Hands a whole request to tiny_http, over a connection of its own.
    fn ask(&mut self, key: Key, rest: Vec<u8>, last: bool) -> Result<(), Fault> {
        let now = self.reactor.now;
        let stream = Stream::Unix(self.setup.front.connect()?);
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let backend = self.reactor.add(Link::plain(stream, nobody, now), State::Backend(Backend { client: key }))?;
        self.backends += 1;
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            if let State::Api(api) = &mut socket.state {
                api.phase = Phase::Asking { backend, rest, last };
                api.partial = None;
                api.active = now;
                let ticket = std::mem::replace(&mut api.ticket, self.controllers.join(key));
                self.controllers.leave(ticket);
            }
        }
        self.ask_further(key)
    }

    /// Hands on what of the request the backend has not taken yet.
    fn ask_further(&mut self, key: Key) -> Result<(), Fault> {
        let Some(State::Api(api)) = self.state(key) else { return Ok(()) };
        let Phase::Asking { backend, .. } = api.phase else { return Ok(()) };
        let now = self.reactor.now;
        let Some((client, backend, _)) = self.reactor.pair_mut(key, backend) else { return Ok(()) };
        let State::Api(api) = &mut client.state else { return Ok(()) };
        if let Phase::Asking { rest, .. } = &mut api.phase {
            let count = backend.link.write_through(rest, now)?;
            rest.drain(..count);
        }
        Ok(())
    }

    /// Brings an answer back to its Controller.
    pub(super) fn serve_backend(&mut self, key: Key) {
        let Some(State::Backend(Backend { client })) = self.state(key) else { return };
        let (client, now) = (*client, self.reactor.now);
        if self.ask_further(client).is_err() {
            return self.drop_controller(client);
        }
        let Some((backend, controller, desk)) = self.reactor.pair_mut(key, client) else { return self.remove(key) };
        let pumped = pump((&mut backend.link, End::Open), (&mut controller.link, End::Open), desk, now);
        if let (Ok(pumped), State::Api(api)) = (&pumped, &mut controller.state) {
            api.note_taken(pumped.payload, now);
        }
        match pumped.map(|pumped| pumped.then) {
            Ok(Then::Again) => self.reactor.again(key),
            Ok(Then::Starved(want)) => self.reactor.note_hunger(key, Some(want)),
            Ok(Then::Dry | Then::Full) => {}
            Ok(Then::Ended) => self.answered(client),
            Err(_) => self.drop_controller(client),
        }
    }

    /// The whole answer is on its way.
    fn answered(&mut self, client: Key) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(client) else { return };
        let State::Api(api) = &mut socket.state else { return };
        let Phase::Asking { backend, last, .. } = std::mem::replace(&mut api.phase, Phase::Reading) else { return };
        api.active = now;
        self.remove(backend);
        if last {
            self.close_controller(client);
        } else {
            self.reactor.again(client);
        }
    }

    /// Ends a Controller's connection that is not being answered: it gets what is on its way.
    fn close_controller(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Api(api) = &mut socket.state else { return };
        if let Phase::Reading = api.phase {
            api.phase = Phase::Closing(Closing::refuse(&mut socket.link, now));
        }
        let Phase::Closing(closing) = &mut api.phase else { return };
        match closing.proceed(&mut socket.link, desk, now) {
            Ok(Progress::Wait) => {}
            Ok(Progress::Again) => self.reactor.again(key),
            Ok(Progress::Over) | Err(_) => {
                self.part_with_controller(key);
                self.remove(key);
            }
        }
    }

    /// Ends a Controller's connection at once.
    pub(super) fn drop_controller(&mut self, key: Key) {
        self.part_with_controller(key);
        self.discard(key);
    }

    /// Takes a Controller's connection, and ours on its behalf, out of the counts.
    fn part_with_controller(&mut self, key: Key) {
        if let Some(State::Api(api)) = self.take_state_if(key, |state| matches!(state, State::Api(_))) {
            match api.outsider {
                true => self.outsiders.leave(api.ticket),
                false => drop(self.controllers.leave(api.ticket)),
            }
            if let Phase::Asking { backend, .. } = api.phase {
                self.remove(backend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::queue::Queue;

    #[test]
    fn an_answer_is_taken_at_a_rate_and_not_a_byte_at_a_time() {
        let start = Instant::now();
        let peer = Peer::of(([192, 0, 2, 1], 5).into(), ([192, 0, 2, 2], 80).into());
        let fresh = || Api::new(peer, Queue::default().join(1), false, start);
        let seconds = |n| start + Duration::from_secs(n);
        let (mut slow, mut steady) = (fresh(), fresh());
        for second in 1..=600 {
            slow.note_taken(1, seconds(second));
            steady.note_taken(ANSWER_RATE, seconds(second));
        }
        assert!(slow.active + KEEP_ALIVE < seconds(61), "ten minutes for 600 bytes");
        assert_eq!(steady.active, seconds(600));
        // What was taken at once is no credit for later.
        steady.note_taken(100 << 20, seconds(601));
        assert_eq!(steady.active, seconds(601));
    }
}
