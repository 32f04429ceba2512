//! Who waits for a relay buffer, and who is called when one is free: first whose network holds none, and of these who
//! has waited longest.
//!
//! While somebody waits, nobody else takes a buffer: a session that has given one back goes to the end of the queue. So
//! everybody has a turn, even if the readers that hold all buffers are slow and never stop.

use super::{Key, Reactor};
use crate::net::buffers::{Purpose, Want};
use crate::network::Network;
use std::collections::HashMap;

/// Whether a connection waits for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BufferWait {
    No,
    /// It stands in the queue.
    Queued(Want),
    /// It was at the head of the queue, and has its turn now: it goes back there if others were quicker.
    Called,
}

/// Who is called at once.
struct Round {
    /// Buffers that nobody has been called for.
    free: usize,
    /// Those that each network holds, with those that it is called for.
    held: HashMap<Network, usize>,
    /// The free ones are kept for somebody who needs one more.
    is_reserved: bool,
}

impl<S> Reactor<S> {
    /// Queues `key` for when a buffer is free for `wanted`, or takes it out of that queue.
    pub fn wait_for_buffer(&mut self, key: Key, wanted: Option<Want>) {
        let Some(want) = wanted else { return self.wait_no_more(key) };
        let Some(slot) = self.slots.get_mut(key) else { return };
        match std::mem::replace(&mut slot.buffer_wait, BufferWait::Queued(want)) {
            BufferWait::No => self.buffer_queue.push_back(key),
            BufferWait::Called => self.buffer_queue.push_front(key),
            BufferWait::Queued(_) => {}
        }
    }

    pub(super) fn wait_no_more(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if let BufferWait::Queued(_) = std::mem::replace(&mut slot.buffer_wait, BufferWait::No) {
            self.buffer_queue.retain(|&other| other != key);
        }
    }

    /// How many wait for a buffer.
    pub fn waiting_for_buffers(&self) -> usize {
        self.buffer_queue.len()
    }

    /// Has the pool give buffers to `key` only if it overtakes nobody.
    pub(super) fn mind_the_queue(&mut self, key: Key) {
        let others_wait = (self.is_contended || !self.buffer_queue.is_empty())
            && self.slots.get(key).is_none_or(|slot| slot.buffer_wait != BufferWait::Called);
        self.ctx.pool.yield_to(others_wait);
    }

    /// Those whose turn it is to have a buffer are queued for this turn of the loop: first whose network holds none, and
    /// of these who has waited longest.
    pub(super) fn call_waiting(&mut self) {
        self.is_contended = !self.buffer_queue.is_empty();
        if !self.is_contended {
            return;
        }
        let mut round = Round { free: self.ctx.pool.free(), held: HashMap::new(), is_reserved: false };
        self.call_those(&mut round, |held| held == 0);
        self.call_those(&mut round, |_| true);
    }

    fn call_those(&mut self, round: &mut Round, may_hold: impl Fn(usize) -> bool) {
        let Round { free, held, is_reserved } = round;
        let mut at = 0;
        while let Some(&key) = self.buffer_queue.get(at) {
            let Some(slot) = self.slots.get_mut(key) else { return };
            let BufferWait::Queued(Want { purpose, network }) = slot.buffer_wait else { return };
            let pool = &self.ctx.pool;
            let mut count = || *held.entry(network).or_insert_with(|| pool.held_by(network));
            let passes = !*is_reserved || purpose == Purpose::Api;
            if !may_hold(count()) || !passes || !pool.would_admit(purpose, *free, &mut count) {
                // Those behind it may be content with what is there, unless it only lacks the one for its payload.
                *is_reserved |= may_hold(count())
                    && purpose == Purpose::Record
                    && pool.may_keep_records()
                    && pool.would_admit(Purpose::Payload, *free, count);
                at += 1;
                continue;
            }
            if purpose != Purpose::Api {
                *free -= 1;
                held.entry(network).and_modify(|count| *count += 1);
            }
            slot.buffer_wait = BufferWait::Called;
            self.buffer_queue.remove(at);
            self.again(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::Pool;
    use crate::net::link::Link;
    use crate::net::reactor::{Close, Ending};
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
        keys.into_iter().for_each(|key| reactor.wait_for_buffer(key, Some(PAYLOAD)));
        keys.into_iter().for_each(|key| reactor.wait_for_buffer(key, Some(PAYLOAD)));
        assert_eq!(reactor.waiting_for_buffers(), 3);
        reactor.close(keys[0], Close::Abort, None);
        reactor.wait_for_buffer(keys[1], None);
        assert_eq!(reactor.waiting_for_buffers(), 1);
    }

    #[test]
    fn who_was_called_in_vain_keeps_its_place() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let [first, second] = [(); 2].map(|()| add(&mut reactor));
        let lent = reactor.ctx.pool.take(PAYLOAD).unwrap();
        [first, second].into_iter().for_each(|key| reactor.wait_for_buffer(key, Some(PAYLOAD)));
        for _ in 0..3 {
            reactor.call_waiting();
            assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(first), None), "one buffer, one call");
            reactor.wait_for_buffer(first, Some(PAYLOAD));
        }
        reactor.ctx.pool.give(lent);
        reactor.call_waiting();
        assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(first), Some(second)));
    }

    fn admits(reactor: &mut Reactor<()>, key: Key, want: Want) -> bool {
        reactor.get_mut(key).unwrap().1.pool.admits(want)
    }

    #[test]
    fn who_waits_for_a_buffer_is_not_overtaken() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let [first, second] = [(); 2].map(|()| add(&mut reactor));
        let lent = [(); 2].map(|()| reactor.ctx.pool.take(PAYLOAD).unwrap());
        reactor.wait_for_buffer(first, Some(PAYLOAD));
        lent.into_iter().for_each(|buffer| reactor.ctx.pool.give(buffer));
        assert!(!admits(&mut reactor, second, PAYLOAD), "it has given one back, and takes it again");
        reactor.call_waiting();
        assert_eq!(reactor.next_ready(), Some(first));
        assert!(!admits(&mut reactor, second, PAYLOAD), "its turn came first");
        assert!(admits(&mut reactor, first, PAYLOAD));
        reactor.wait_for_buffer(first, None);
        reactor.call_waiting();
        assert!(admits(&mut reactor, second, PAYLOAD));
    }

    #[test]
    fn the_beginning_of_a_record_gets_a_buffer_although_others_behind_it_need_one_less() {
        let mut reactor = Reactor::new(Pool::new(4, 0).unwrap()).unwrap();
        let [record, payload] = [(); 2].map(|()| add(&mut reactor));
        let mut lent = Vec::from([(); 4].map(|()| reactor.ctx.pool.take(PAYLOAD).unwrap()));
        reactor.wait_for_buffer(record, Some(Want { purpose: Purpose::Record, ..PAYLOAD }));
        reactor.wait_for_buffer(payload, Some(PAYLOAD));
        for back in 1..=2 {
            lent.drain(..1).for_each(|buffer| reactor.ctx.pool.give(buffer));
            reactor.call_waiting();
            assert_eq!(reactor.next_ready(), None, "{back} have come back");
        }
        lent.drain(..1).for_each(|buffer| reactor.ctx.pool.give(buffer));
        reactor.call_waiting();
        assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(record), Some(payload)));
        lent.drain(..1).for_each(|buffer| reactor.ctx.pool.give(buffer));
    }

    #[test]
    fn who_is_only_closing_waits_for_no_buffer() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let key = add(&mut reactor);
        reactor.wait_for_buffer(key, Some(PAYLOAD));
        reactor.close(key, Close::Drain(Ending::Complete), None);
        assert_eq!(reactor.waiting_for_buffers(), 0);
    }

    #[test]
    fn a_buffer_goes_first_to_a_network_that_holds_none() {
        let mut reactor = Reactor::new(Pool::new(2, 0).unwrap()).unwrap();
        let [one, two, other] = [(); 3].map(|()| add(&mut reactor));
        let lent = reactor.ctx.pool.take(PAYLOAD).unwrap();
        [one, two].into_iter().for_each(|key| reactor.wait_for_buffer(key, Some(PAYLOAD)));
        reactor.wait_for_buffer(other, Some(Want { network: Network::V4(2), ..PAYLOAD }));
        reactor.call_waiting();
        assert_eq!((reactor.next_ready(), reactor.next_ready()), (Some(other), None));
        reactor.ctx.pool.give(lent);
    }
}
