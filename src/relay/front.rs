//! The API port, in front of tiny_http.
//!
//! tiny_http parses HTTP and nothing else: it would give every connection a thread and wait for ever. So it
//! listens on a private Unix socket, and only this file connects to it, with whole requests of bounded size that
//! came in bounded time ([`super::request`]). Each request carries the caller's address and a key that only this
//! process knows; the control thread refuses what lacks it.

use super::Relay;
use super::request::{Collector, Step};
use super::state::State;
use super::throttle::and_more;
use crate::limits::{API_CONNECTIONS, KEEP_ALIVE, REQUEST_TIME};
use crate::net::link::{Fault, Got, Link};
use crate::net::pump::{End, Pumped, Then, pump};
use crate::net::reactor::Key;
use crate::net::stream::Stream;
use log::warn;
use mio::net::{TcpStream, UnixStream};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    key: String,
}

/// A Controller's connection.
pub(super) struct Api {
    collector: Collector,
    backend: Option<Key>,
    /// What of a request the backend has not taken yet.
    pending: Vec<u8>,
    /// When the first byte of a request that is not complete came.
    partial: Option<Instant>,
    /// When the last request was complete, or the connection was made.
    asked: Instant,
    /// When something last went through.
    active: Instant,
    /// A request has gone to the backend, and nothing has come back since.
    unanswered: bool,
    /// No request will follow.
    last: bool,
}

/// Our connection to the HTTP parser on behalf of one Controller's connection.
pub(super) struct Backend {
    client: Key,
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
            let door = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&name)?;
            Ok((Self { door, key: uuid::Uuid::new_v4().to_string() }, listener))
        });
        let removed = fs::remove_dir_all(folder);
        let made = made?;
        removed?;
        Ok(made)
    }

    /// The key that every request from here carries.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.door.as_raw_fd()))
    }
}

impl Api {
    fn new(now: Instant) -> Self {
        Self {
            collector: Collector::new(),
            backend: None,
            pending: Vec::new(),
            partial: None,
            asked: now,
            active: now,
            unanswered: false,
            last: false,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.partial.map_or(self.active + KEEP_ALIVE, |since| since + REQUEST_TIME)
    }

    /// Nothing is on its way in either direction.
    pub(super) fn is_idle(&self) -> bool {
        !self.unanswered && self.pending.is_empty()
    }
}

/// What is to be done with a Controller's connection after its turn.
enum Next {
    Wait,
    Again,
    /// What it gets is on its way; then close.
    Close,
    /// It is broken, or never was.
    Drop,
}

impl Relay {
    pub(super) fn take_in_controller(&mut self, stream: TcpStream, peer: SocketAddr) {
        let is_api = |state: &State| matches!(state, State::Api(_));
        if self.reactor.iter().filter(|(_, socket)| is_api(&socket.state)).count() >= API_CONNECTIONS {
            self.push_out_controller();
        }
        let Some(mut link) = self.link(stream, peer) else { return };
        link.trust();
        self.enter(link, |relay, _| {
            relay.api += 1;
            Some(State::Api(Api::new(relay.reactor.now)))
        });
    }

    /// Makes room: the one that has gone longest without a complete request goes.
    fn push_out_controller(&mut self) {
        let asked = self.reactor.iter().filter_map(|(key, socket)| match &socket.state {
            State::Api(api) => Some((key, socket.link.peer, api.asked)),
            _ => None,
        });
        let Some((key, peer, _)) = asked.min_by_key(|&(_, _, asked)| asked) else { return };
        if let Some(unsaid) = self.listeners.pushed_out.may_say(self.reactor.now) {
            let more = and_more(unsaid);
            warn!("{API_CONNECTIONS} API connections: the idlest one, from {peer}, is closed for a new one{more}");
        }
        self.part_with_controller(key);
        self.discard(key);
    }

    /// Its request did not come in time, or no request came for long.
    pub(super) fn controller_is_late(&mut self, key: Key) {
        let Some(State::Api(api)) = self.reactor.get(key).map(|socket| &socket.state) else { return };
        let late = api.partial.is_some();
        if late {
            let answer = Collector::too_late();
            self.tell_controller(key, &answer);
        }
        self.part_with_controller(key);
        self.close(key);
    }

    /// Reads requests, hands on those that are complete.
    pub(super) fn serve_controller(&mut self, key: Key) {
        match self.read_requests(key) {
            Ok(Next::Wait) => self.fetch_answer(key),
            Ok(Next::Again) => self.reactor.again(key),
            Ok(Next::Close) => {
                self.part_with_controller(key);
                self.close(key);
            }
            Ok(Next::Drop) | Err(_) => {
                self.part_with_controller(key);
                self.discard(key);
            }
        }
    }

    /// There may be room for more of an answer.
    fn fetch_answer(&mut self, key: Key) {
        if let Some(State::Api(Api { backend: Some(backend), .. })) = self.reactor.get(key).map(|s| &s.state) {
            self.reactor.again_if(*backend, |socket| socket.link.may_read());
        }
    }

    fn read_requests(&mut self, key: Key) -> Result<Next, Fault> {
        let now = self.reactor.now;
        for _ in 0..READS {
            if !self.forward(key)? {
                return Ok(Next::Wait);
            }
            if let Some(next) = self.next_request(key)? {
                return Ok(next);
            }
            let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Next::Wait) };
            let State::Api(api) = &mut socket.state else { return Ok(Next::Wait) };
            if !socket.link.flush(&mut desk.pool, now)? || !socket.link.handshake(desk, now)? {
                return Ok(Next::Wait);
            }
            let collector = &mut api.collector;
            let mut came = false;
            let got = socket.link.receive(READ, desk, now, |bytes| {
                collector.push(bytes);
                came = true;
            })?;
            if came {
                api.partial.get_or_insert(now);
                api.active = now;
                continue;
            }
            return match got {
                Got::Some => Ok(Next::Again),
                Got::Dry => Ok(Next::Wait),
                Got::End => Ok(self.controller_ended(key)),
            };
        }
        Ok(Next::Again)
    }

    /// Takes one step with what has been collected. `None`: more must be read.
    fn next_request(&mut self, key: Key) -> Result<Option<Next>, Fault> {
        let now = self.reactor.now;
        loop {
            let Some((socket, desk)) = self.reactor.get_mut(key) else { return Ok(Some(Next::Wait)) };
            let State::Api(api) = &mut socket.state else { return Ok(Some(Next::Wait)) };
            if api.last {
                return Ok(Some(Next::Wait));
            }
            match api.collector.next(socket.link.peer.ip(), &self.setup.front.key) {
                Step::Incomplete => {
                    if api.collector.is_empty() {
                        api.partial = None;
                    }
                    return Ok(None);
                }
                Step::Continue => socket.link.send(CONTINUE, desk, now)?,
                Step::Refuse(answer) => {
                    socket.link.send(&answer, desk, now)?;
                    return Ok(Some(Next::Close));
                }
                Step::Request { bytes, last } => {
                    api.pending = bytes;
                    api.last = last;
                    api.unanswered = true;
                    api.partial = if api.collector.is_empty() { None } else { Some(now) };
                    api.asked = now;
                    api.active = now;
                    if !self.forward(key)? {
                        return Ok(Some(Next::Wait));
                    }
                }
            }
        }
    }

    /// Hands what is pending to the backend. True: nothing is left.
    fn forward(&mut self, key: Key) -> Result<bool, Fault> {
        let Some(State::Api(api)) = self.reactor.get(key).map(|socket| &socket.state) else { return Ok(false) };
        if api.pending.is_empty() {
            return Ok(true);
        }
        let backend = match api.backend {
            Some(backend) => backend,
            None => self.connect_backend(key)?,
        };
        let Some((client, backend, _)) = self.reactor.pair_mut(key, backend) else { return Ok(false) };
        let State::Api(api) = &mut client.state else { return Ok(false) };
        let count = backend.link.write_through(&api.pending)?;
        api.pending.drain(..count);
        Ok(api.pending.is_empty())
    }

    fn connect_backend(&mut self, client: Key) -> io::Result<Key> {
        let now = self.reactor.now;
        let stream = Stream::Unix(self.setup.front.connect()?);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let backend = self.reactor.add(Link::plain(stream, nowhere, now), State::Backend(Backend { client }))?;
        self.api += 1;
        if let Some((socket, _)) = self.reactor.get_mut(client) {
            if let State::Api(api) = &mut socket.state {
                api.backend = Some(backend);
            }
        }
        Ok(backend)
    }

    /// The Controller will send no more. What it has asked is still answered.
    fn controller_ended(&mut self, key: Key) -> Next {
        let Some(State::Api(api)) = self.reactor.get(key).map(|socket| &socket.state) else { return Next::Drop };
        match api.backend {
            Some(backend) if api.unanswered => {
                let told = self.reactor.get(backend).map(|socket| socket.link.stream().shutdown_write());
                if matches!(told, Some(Ok(()))) { Next::Wait } else { Next::Drop }
            }
            _ => Next::Drop,
        }
    }

    /// Brings answers back to the Controller.
    pub(super) fn serve_backend(&mut self, key: Key) {
        let Some(State::Backend(Backend { client })) = self.reactor.get(key).map(|socket| &socket.state) else {
            return;
        };
        let (client, now) = (*client, self.reactor.now);
        let Some((backend, controller, desk)) = self.reactor.pair_mut(key, client) else { return self.remove(key) };
        let pumped = pump((&mut backend.link, End::Open), (&mut controller.link, End::Open), desk, now);
        if let (Ok(Pumped { payload: 1.., .. }), State::Api(api)) = (&pumped, &mut controller.state) {
            api.unanswered = false;
            api.active = now;
        }
        match pumped.map(|pumped| pumped.then) {
            Ok(Then::Again) => self.reactor.again(key),
            Ok(Then::Starved) => self.reactor.starve(key),
            // What is pending may go on now, or what is left of the answer.
            Ok(Then::Dry) => self.reactor.again_if(client, |socket| match &socket.state {
                State::Api(api) => !api.pending.is_empty(),
                _ => false,
            }),
            Ok(Then::Full) => {}
            Ok(Then::Ended) => {
                self.part_with_controller(client);
                self.close(client);
            }
            Err(_) => {
                self.part_with_controller(client);
                self.discard(client);
            }
        }
    }

    fn tell_controller(&mut self, key: Key, answer: &[u8]) {
        let now = self.reactor.now;
        if let Some((socket, desk)) = self.reactor.get_mut(key) {
            if socket.link.is_open() {
                // It is closed anyway.
                let _ = socket.link.send(answer, desk, now);
            }
        }
    }

    /// Takes a Controller's connection, and ours on its behalf, out of the counts.
    fn part_with_controller(&mut self, key: Key) {
        if let Some(State::Api(api)) = self.take_state_if(key, |state| matches!(state, State::Api(_))) {
            self.api -= 1;
            if let Some(backend) = api.backend {
                self.remove(backend);
            }
        }
    }
}
