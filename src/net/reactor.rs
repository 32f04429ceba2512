//! Poll, readiness and deadlines: what every event loop of this program stands on.
//!
//! A turn has two halves. First all events are noted on their links; then the links that have something to do
//! are worked on, each a bounded amount. A link that could go on is queued for the next turn. An entry may be
//! removed at any time: nothing of a turn refers to it by anything but its key, which is looked up again.

mod buffer_queue;

use super::buffers::{IoContext, Pool};
use super::closing::{Closing, Ending, Progress, end_at_once};
use super::link::Link;
use crate::limits::STOP_POLL;
use buffer_queue::BufferWait;
use mio::{Events, Poll, Registry, Token};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The longest sleep: retries and statistics happen at least so often.
pub const TICK: Duration = Duration::from_secs(1);
/// Tokens from here on belong to the owner of the reactor (listeners, wakers, signals).
const OWN: usize = 1 << (usize::BITS - 1);

/// The token of the owner's `number`th own source.
pub fn own_token(number: usize) -> Token {
    Token(OWN | number)
}

/// Names a connection of the reactor until it is removed.
pub type Key = usize;

/// Connections that are closed together with what they belonged to, even while they are only closing.
pub type Group = usize;

/// A connection that its owner works with.
pub struct Socket<'r, S> {
    pub link: &'r Link,
    pub state: &'r S,
}

/// The same, to be changed.
pub struct SocketMut<'r, S> {
    pub link: &'r mut Link,
    pub state: &'r mut S,
}

/// Any connection of the reactor.
pub enum Entry<'r, S> {
    Active(Socket<'r, S>),
    Closing(&'r Link, &'r Closing),
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// What is held is delivered first.
    Drain(Ending),
    /// The same for a peer that is not listened to for long.
    Refuse,
    /// At once, with FIN rather than a reset as far as one read can help it.
    Now,
    /// At once.
    Abort,
}

struct Slot<S> {
    link: Link,
    stage: Stage<S>,
    queued: bool,
    buffer_wait: BufferWait,
}

enum Stage<S> {
    Active(S),
    /// The owner has nothing to do with it any more.
    Closing(Closing, Option<Group>),
}

/// All connections of one event loop.
pub struct Reactor<S> {
    poll: Poll,
    events: Events,
    slots: Slab<Slot<S>>,
    /// How many of each group are only closing.
    closing: BTreeMap<Group, usize>,
    ready: VecDeque<Key>,
    buffer_queue: VecDeque<Key>,
    /// Somebody waited for a buffer when this turn began.
    is_contended: bool,
    wake_at: Option<Instant>,
    pub ctx: IoContext,
    /// The time of this turn.
    pub now: Instant,
}

impl<S> Drop for Reactor<S> {
    fn drop(&mut self) {
        for mut slot in self.slots.drain() {
            slot.link.release(&mut self.ctx.pool);
        }
    }
}

impl<S> Slot<S> {
    fn active(&self) -> Option<Socket<'_, S>> {
        match &self.stage {
            Stage::Active(state) => Some(Socket { link: &self.link, state }),
            Stage::Closing(..) => None,
        }
    }

    fn active_mut(&mut self) -> Option<SocketMut<'_, S>> {
        match &mut self.stage {
            Stage::Active(state) => Some(SocketMut { link: &mut self.link, state }),
            Stage::Closing(..) => None,
        }
    }
}

impl<S> Reactor<S> {
    /// An event loop with these buffers: at least one relay buffer for each way through it.
    pub fn new(pool: Pool) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            slots: Slab::new(),
            closing: BTreeMap::new(),
            ready: VecDeque::new(),
            buffer_queue: VecDeque::new(),
            is_contended: false,
            wake_at: None,
            ctx: IoContext::new(pool),
            now: Instant::now(),
        })
    }

    /// Where the owner registers what is not a link, with [`own_token`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Takes in a link, in this state.
    pub fn add(&mut self, link: Link, state: S) -> io::Result<Key> {
        self.add_with(link, |_| state)
    }

    /// Takes in a link, in the state that `state` makes for its key.
    pub fn add_with(&mut self, mut link: Link, state: impl FnOnce(Key) -> S) -> io::Result<Key> {
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        link.stream.register(self.poll.registry(), Token(key))?;
        entry.insert(Slot { link, stage: Stage::Active(state(key)), queued: false, buffer_wait: BufferWait::No });
        Ok(key)
    }

    /// Another state, for the one that is returned.
    pub fn change(&mut self, key: Key, state: S) -> Option<S> {
        match &mut self.slots.get_mut(key)?.stage {
            Stage::Active(old) => Some(std::mem::replace(old, state)),
            Stage::Closing(..) => None,
        }
    }

    /// Ends a connection that is not closing yet, and returns the state that it leaves.
    pub fn close(&mut self, key: Key, how: Close, group: Option<Group>) -> Option<S> {
        let now = self.now;
        let slot = self.slots.get_mut(key)?;
        slot.active()?;
        let closing = match how {
            Close::Drain(ending) => Closing::begin(&mut slot.link, ending, now),
            Close::Refuse => Closing::refuse(&mut slot.link, now),
            Close::Now => {
                end_at_once(&mut slot.link, &mut self.ctx, now);
                return self.remove(key);
            }
            Close::Abort => return self.remove(key),
        };
        group.into_iter().for_each(|group| *self.closing.entry(group).or_default() += 1);
        self.wait_no_more(key);
        let left = std::mem::replace(&mut self.slots.get_mut(key)?.stage, Stage::Closing(closing, group));
        self.close_further(key);
        match left {
            Stage::Active(state) => Some(state),
            Stage::Closing(..) => None,
        }
    }

    /// Goes on with closing, if the connection does. False: its owner is to work with it.
    pub fn close_further(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return true };
        let Stage::Closing(closing, _) = &mut slot.stage else { return false };
        let progress = closing.proceed(&mut slot.link, &mut self.ctx, self.now);
        let deadline = closing.deadline(&slot.link);
        match progress {
            Ok(Progress::Wait) => self.wake_by(deadline),
            Ok(Progress::Again) => self.again(key),
            Ok(Progress::Over) | Err(_) => drop(self.remove(key)),
        }
        true
    }

    /// The deadline of a closing connection has come. False: it is not closing.
    pub fn close_at_last(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return true };
        let Stage::Closing(closing, _) = &mut slot.stage else { return false };
        if closing.is_over(&slot.link, self.now) {
            self.remove(key);
        } else {
            let deadline = closing.deadline(&slot.link);
            self.wake_by(deadline);
        }
        true
    }

    /// How many connections are only closing.
    pub fn closing(&self) -> usize {
        self.entries().filter(|(_, entry)| matches!(entry, Entry::Closing(..))).count()
    }

    /// The connections of `group` that are only closing.
    fn closing_of(&self, group: Group) -> impl Iterator<Item = Key> {
        let is_of = move |slot: &Slot<S>| matches!(slot.stage, Stage::Closing(_, Some(its)) if its == group);
        self.slots.iter().filter(move |(_, slot)| is_of(slot)).map(|(key, _)| key)
    }

    /// Ends the connections of `group` that are only closing.
    pub fn abort_closing(&mut self, group: Group) {
        if self.closing_in(group) > 0 {
            for key in self.closing_of(group).collect::<Vec<Key>>() {
                self.remove(key);
            }
        }
    }

    /// Ends one of them. False: there is none.
    pub fn abort_one_closing(&mut self, group: Group) -> bool {
        let first = self.closing_of(group).next();
        first.into_iter().for_each(|key| drop(self.remove(key)));
        first.is_some()
    }

    /// Ends a connection that is only closing.
    pub fn abort_if_closing(&mut self, key: Key) {
        if self.slots.get(key).is_some_and(|slot| slot.active().is_none()) {
            self.remove(key);
        }
    }

    /// How many connections of `group` are only closing.
    pub fn closing_in(&self, group: Group) -> usize {
        self.closing.get(&group).copied().unwrap_or(0)
    }

    /// While the process ends: everybody has got everything (`is_done` says it of those that are not closing), or it is
    /// `end`. If not, there is a turn soon, since acknowledgements raise no event.
    pub fn is_drained(&mut self, end: Instant, is_done: impl Fn(Socket<'_, S>) -> bool) -> bool {
        let over = self.now >= end || self.has_delivered(is_done);
        if !over {
            self.wake_by(end.min(self.now + STOP_POLL));
        }
        over
    }

    /// Everybody who is closing has got everything, and `is_done` says that all others have, too.
    fn has_delivered(&self, is_done: impl Fn(Socket<'_, S>) -> bool) -> bool {
        self.entries().all(|(_, entry)| match entry {
            Entry::Active(socket) => is_done(socket),
            Entry::Closing(link, closing) => closing.has_delivered(link),
        })
    }

    fn remove(&mut self, key: Key) -> Option<S> {
        self.wait_no_more(key);
        let mut slot = self.slots.try_remove(key)?;
        slot.link.release(&mut self.ctx.pool);
        match slot.stage {
            Stage::Active(state) => Some(state),
            Stage::Closing(_, group) => {
                let group = group?;
                let count = self.closing.get_mut(&group)?;
                *count -= 1;
                if *count == 0 {
                    self.closing.remove(&group);
                }
                None
            }
        }
    }

    /// A connection that is not closing.
    pub fn get(&self, key: Key) -> Option<Socket<'_, S>> {
        self.slots.get(key)?.active()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<(SocketMut<'_, S>, &mut IoContext)> {
        self.mind_the_queue(key);
        Some((self.slots.get_mut(key)?.active_mut()?, &mut self.ctx))
    }

    /// Two connections at once. Buffers are for what comes from the first.
    pub fn pair_mut(&mut self, one: Key, other: Key) -> Option<(SocketMut<'_, S>, SocketMut<'_, S>, &mut IoContext)> {
        self.mind_the_queue(one);
        let (a, b) = self.slots.get2_mut(one, other)?;
        Some((a.active_mut()?, b.active_mut()?, &mut self.ctx))
    }

    /// All connections that are not closing.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Socket<'_, S>)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.active()?)))
    }

    /// The keys of those connections for which `is` holds.
    pub fn keys(&self, is: impl Fn(&Socket<'_, S>) -> bool) -> Vec<Key> {
        self.iter().filter(|(_, socket)| is(socket)).map(|(key, _)| key).collect()
    }

    /// All connections.
    pub fn entries(&self) -> impl Iterator<Item = (Key, Entry<'_, S>)> {
        self.slots.iter().map(|(key, slot)| match &slot.stage {
            Stage::Active(state) => (key, Entry::Active(Socket { link: &slot.link, state })),
            Stage::Closing(closing, _) => (key, Entry::Closing(&slot.link, closing)),
        })
    }

    pub fn links(&self) -> impl Iterator<Item = (Key, &Link)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.link))
    }

    pub fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.slots.iter_mut().map(|(_, slot)| &mut slot.link)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No connections at all.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Queues `key` for the next turn: there is more to do.
    pub fn again(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            if !std::mem::replace(&mut slot.queued, true) {
                self.ready.push_back(key);
            }
        }
    }

    /// Queues `key` if `wanted` says that there is something to do.
    pub fn again_if(&mut self, key: Key, wanted: impl FnOnce(Socket<'_, S>) -> bool) {
        if self.get(key).is_some_and(wanted) {
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
        self.call_waiting();
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
            } else if let Some(slot) = self.slots.get_mut(token) {
                slot.link.note(event);
                if !std::mem::replace(&mut slot.queued, true) {
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
            if let Some(slot) = self.slots.get_mut(key) {
                if std::mem::take(&mut slot.queued) {
                    return Some(key);
                }
            }
        }
        None
    }
}
