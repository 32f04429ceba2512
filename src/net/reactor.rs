//! Poll, readiness and deadlines: what every event loop of this program stands on.
//!
//! A turn has two halves. First all events are noted on their links; then the links that have something to do
//! are worked on, each a bounded amount. A link that could go on is queued for the next turn. An entry may be
//! removed at any time: nothing of a turn refers to it by anything but its key, which is looked up again.

use super::buffers::{Desk, Pool, Purpose, Want};
use super::link::Link;
use crate::network::Network;
use mio::{Events, Poll, Registry, Token};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The longest sleep: retries and statistics happen at least so often.
pub const TICK: Duration = Duration::from_secs(1);
/// Tokens from here on belong to the owner of the reactor (listeners, wakers, signals).
const OWN: usize = 1 << (usize::BITS - 1);

/// Names a socket of the reactor until it is removed.
pub type Key = usize;

/// One link, and what its owner knows of it.
pub struct Socket<S> {
    pub link: Link,
    pub state: S,
    queued: bool,
    hunger: Hunger,
}

/// Whether a socket waits for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hunger {
    Fed,
    /// It stands in the queue.
    Waits(Want),
    /// It was at the head of the queue, and has its turn now: it goes back there if others were quicker.
    Called,
}

/// All sockets of one event loop.
pub struct Reactor<S> {
    poll: Poll,
    events: Events,
    sockets: Slab<Socket<S>>,
    ready: VecDeque<Key>,
    starved: VecDeque<Key>,
    wake_at: Option<Instant>,
    pub desk: Desk,
    /// The time of this turn.
    pub now: Instant,
}

impl<S> Drop for Reactor<S> {
    fn drop(&mut self) {
        for mut socket in self.sockets.drain() {
            socket.link.release(&mut self.desk.pool);
        }
    }
}

impl<S> Reactor<S> {
    /// An event loop with these buffers: at least one relay buffer for each way through it.
    pub fn new(pool: Pool) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            sockets: Slab::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            wake_at: None,
            desk: Desk::new(pool),
            now: Instant::now(),
        })
    }

    /// Where the owner registers what is not a link, with [`Reactor::own_token`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// The token of the owner's `number`th own source.
    pub fn own_token(number: usize) -> Token {
        Token(OWN | number)
    }

    /// Takes in a link and queues it.
    pub fn add(&mut self, mut link: Link, state: S) -> io::Result<Key> {
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        link.stream.register(self.poll.registry(), Token(key))?;
        entry.insert(Socket { link, state, queued: false, hunger: Hunger::Fed });
        Ok(key)
    }

    /// Closes the socket and frees all that belongs to it. `None` if it was gone already.
    pub fn remove(&mut self, key: Key) -> Option<S> {
        self.feed(key);
        let mut socket = self.sockets.try_remove(key)?;
        socket.link.release(&mut self.desk.pool);
        Some(socket.state)
    }

    pub fn get(&self, key: Key) -> Option<&Socket<S>> {
        self.sockets.get(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<(&mut Socket<S>, &mut Desk)> {
        Some((self.sockets.get_mut(key)?, &mut self.desk))
    }

    /// Two sockets at once, and the desk.
    pub fn pair_mut(&mut self, one: Key, other: Key) -> Option<(&mut Socket<S>, &mut Socket<S>, &mut Desk)> {
        let (a, b) = self.sockets.get2_mut(one, other)?;
        Some((a, b, &mut self.desk))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Socket<S>)> {
        self.sockets.iter()
    }

    pub fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.sockets.iter_mut().map(|(_, socket)| &mut socket.link)
    }

    /// How many sockets there are.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// No sockets at all.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Queues `key` for the next turn: there is more to do.
    pub fn again(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key) {
            if !std::mem::replace(&mut socket.queued, true) {
                self.ready.push_back(key);
            }
        }
    }

    /// Queues `key` if `wanted` says that there is something to do.
    pub fn again_if(&mut self, key: Key, wanted: impl FnOnce(&Socket<S>) -> bool) {
        if self.sockets.get(key).is_some_and(wanted) {
            self.again(key);
        }
    }

    /// Queues `key` for when a buffer is free for `wanted`, or takes it out of that queue.
    pub fn note_hunger(&mut self, key: Key, wanted: Option<Want>) {
        let Some(want) = wanted else { return self.feed(key) };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match std::mem::replace(&mut socket.hunger, Hunger::Waits(want)) {
            Hunger::Fed => self.starved.push_back(key),
            Hunger::Called => self.starved.push_front(key),
            Hunger::Waits(_) => {}
        }
    }

    fn feed(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Hunger::Waits(_) = std::mem::replace(&mut socket.hunger, Hunger::Fed) {
            self.starved.retain(|&other| other != key);
        }
    }

    /// How many wait for a buffer.
    pub fn starving(&self) -> usize {
        self.starved.len()
    }

    /// Those whose turn it is to have a buffer are queued for this turn of the loop: first whose network holds none, and
    /// of these who has waited longest.
    fn call_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let mut free = self.desk.pool.free();
        let mut held = HashMap::new();
        self.call_those(&mut free, &mut held, |held| held == 0);
        self.call_those(&mut free, &mut held, |_| true);
    }

    fn call_those(&mut self, free: &mut usize, held: &mut HashMap<Network, usize>, may_hold: impl Fn(usize) -> bool) {
        let mut at = 0;
        while let Some(&key) = self.starved.get(at) {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            let Hunger::Waits(Want { purpose, network }) = socket.hunger else { return };
            let pool = &self.desk.pool;
            let mut count = || *held.entry(network).or_insert_with(|| pool.held_by(network));
            // Those behind it may be content with what is there.
            if !pool.would_admit(purpose, *free, &mut count) || !may_hold(count()) {
                at += 1;
                continue;
            }
            if purpose != Purpose::Api {
                *free -= 1;
                held.entry(network).and_modify(|count| *count += 1);
            }
            socket.hunger = Hunger::Called;
            self.starved.remove(at);
            self.again(key);
        }
    }

    /// There must be a turn at `at`, if not before.
    pub fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |already| already.min(at)));
    }

    /// The deadlines are due, or a tick has passed: look through all sockets. At most once a [`Reactor::wake_by`].
    pub fn scan_is_due(&mut self) -> bool {
        let due = self.wake_at.is_some_and(|at| at <= self.now);
        if due {
            self.wake_at = None;
        }
        due
    }

    /// Sleeps until something happens, and notes it. Returns the owner's own tokens that fired, by number.
    pub fn wait(&mut self, own: &mut Vec<usize>) -> io::Result<()> {
        self.call_starved();
        let until = self.wake_at.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
        let timeout = if self.ready.is_empty() && own.is_empty() { until.min(TICK) } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        self.now = Instant::now();
        for event in &self.events {
            let Token(token) = event.token();
            if token & OWN != 0 {
                if !own.contains(&(token & !OWN)) {
                    own.push(token & !OWN);
                }
            } else if let Some(socket) = self.sockets.get_mut(token) {
                socket.link.note(event);
                if !std::mem::replace(&mut socket.queued, true) {
                    self.ready.push_back(token);
                }
            }
        }
        Ok(())
    }

    /// How many sockets wait for their turn now; what is queued meanwhile belongs to the next one.
    pub fn queued(&self) -> usize {
        self.ready.len()
    }

    /// The next socket whose turn it is.
    pub fn next_ready(&mut self) -> Option<Key> {
        while let Some(key) = self.ready.pop_front() {
            if let Some(socket) = self.sockets.get_mut(key) {
                if std::mem::take(&mut socket.queued) {
                    return Some(key);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stream::Stream;
    use std::os::unix::net::UnixStream;

    const PAYLOAD: Want = Want { purpose: Purpose::Payload, network: Network::V4(1) };

    fn add(reactor: &mut Reactor<()>) -> Key {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(ours));
        let link = Link::plain(stream, ([0, 0, 0, 0], 0).into(), reactor.now);
        reactor.add(link, ()).unwrap()
    }

    #[test]
    fn who_is_gone_or_was_fed_waits_for_no_buffer() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let keys = [(); 3].map(|()| add(&mut reactor));
        keys.into_iter().for_each(|key| reactor.note_hunger(key, Some(PAYLOAD)));
        keys.into_iter().for_each(|key| reactor.note_hunger(key, Some(PAYLOAD)));
        assert_eq!(reactor.starving(), 3);
        reactor.remove(keys[0]);
        reactor.note_hunger(keys[1], None);
        assert_eq!(reactor.starving(), 1);
    }

    #[test]
    fn who_was_called_in_vain_keeps_its_place() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let [first, second] = [(); 2].map(|()| add(&mut reactor));
        let lent = reactor.desk.pool.take(PAYLOAD).unwrap();
        [first, second].into_iter().for_each(|key| reactor.note_hunger(key, Some(PAYLOAD)));
        for _ in 0..3 {
            reactor.call_starved();
            assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(first), None), "one buffer, one call");
            reactor.note_hunger(first, Some(PAYLOAD));
        }
        reactor.desk.pool.give(lent);
        reactor.call_starved();
        assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(first), Some(second)));
    }

    #[test]
    fn a_buffer_goes_first_to_a_network_that_holds_none() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let [one, two, other] = [(); 3].map(|()| add(&mut reactor));
        let lent = reactor.desk.pool.take(PAYLOAD).unwrap();
        [one, two].into_iter().for_each(|key| reactor.note_hunger(key, Some(PAYLOAD)));
        reactor.note_hunger(other, Some(Want { network: Network::V4(2), ..PAYLOAD }));
        reactor.call_starved();
        assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(other), None));
        reactor.desk.pool.give(lent);
    }
}
