//! The fixed pool of relay buffers, and what one turn of the loop works on.
//!
//! All of it is reserved once, at start. Pages are only touched when used, so that a pool that is never needed costs
//! no memory: it is mapped, and not allocated, because not every C library leaves zeroed memory untouched. The loop owns
//! it all; idle connections hold nothing of it.

use crate::limits::{BUFFER, BUFFERS_FOR_FEW, BUFFERS_FOR_PAYLOAD};
use crate::network::Network;
use crate::wire::v2::frame::{HEADER, IN_A_RECORD};
use memmap2::MmapMut;
use std::io;

/// A frame that fits a TLS record, bytes.
const MAX_FRAME: usize = HEADER + IN_A_RECORD;

/// Where in a page the first buffer begins. All begin in the same place, as their size is a multiple of any page's: so
/// payload that is read behind room for a header begins a cache line. The kernel copies with `rep movsb`, which on AMD's
/// Zen is six times slower if it begins at byte 1 to 15 of a page.
const FIRST: usize = 64 - HEADER;

/// Buffers of [`BUFFER`] bytes each. Last given back is first taken, so that the warm one is used again.
///
/// Nobody waits in a circle: the beginnings of records leave some buffers to payload, without which no record could
/// go on, and the control API has its own. And no crowd of slow readers has all of them: the last ones are for networks
/// that hold fewer than are left. Who waits for one is not overtaken: see [`Pool::yield_to`].
pub struct Pool {
    memory: MmapMut,
    /// What a buffer was taken for, by its number; `None`: nobody has it.
    holders: Vec<Option<Want>>,
    /// How many of the relay's hold beginnings of records.
    records: usize,
    /// Others have waited for longer than who works with the pool now.
    others_wait: bool,
    relay: Vec<u32>,
    api: Vec<u32>,
    /// How many are the relay's; those behind them are the API's.
    size: usize,
}

/// What a buffer is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The beginning of a record, until the rest has come. Some buffers are not for this.
    Record,
    /// What a reader has not taken yet.
    Payload,
    /// Either, of a connection to the control API.
    Api,
}

/// A buffer that is wanted, and the network that it counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub purpose: Purpose,
    pub(crate) network: Network,
}

/// The right to use one buffer of the pool. It goes back with [`Pool::give`] and is never dropped.
#[derive(Debug)]
pub struct Buffer(u32);

impl Pool {
    /// Reserves `relay` buffers, and `api` more for the API. Errors: there is no room for them in the address space, or
    /// the system has not that much memory.
    pub fn new(relay: usize, api: usize) -> io::Result<Self> {
        let too_many = || io::Error::new(io::ErrorKind::OutOfMemory, format!("no room for {relay} relay buffers"));
        let count = relay.checked_add(api).ok_or_else(too_many)?;
        let bytes = count.checked_mul(BUFFER).and_then(|bytes| bytes.checked_add(FIRST)).ok_or_else(too_many)?;
        let numbers = u32::try_from(count).map_err(|_| too_many())?;
        let first = numbers - api as u32;
        let memory = MmapMut::map_anon(bytes)?;
        let holders = vec![None; count];
        Ok(Self {
            memory,
            holders,
            records: 0,
            others_wait: false,
            relay: (0..first).rev().collect(),
            api: (first..numbers).rev().collect(),
            size: relay,
        })
    }

    /// A buffer, or `None` when all are in use: wait one's turn. Who wants one for payload has asked [`Pool::admits`]
    /// before it read that.
    pub fn take(&mut self, want: Want) -> Option<Buffer> {
        if want.purpose == Purpose::Record && !self.admits(want) {
            return None;
        }
        let number = if want.purpose == Purpose::Api { self.api.pop() } else { self.relay.pop() }?;
        self.holders[number as usize] = Some(want);
        self.records += usize::from(want.purpose == Purpose::Record);
        Some(Buffer(number))
    }

    /// Whether there is a buffer for this, and it is fair to take it.
    pub fn admits(&self, want: Want) -> bool {
        let must_wait = self.others_wait && want.purpose != Purpose::Api;
        !must_wait && self.would_admit(want.purpose, self.free(), || self.held_by(want.network))
    }

    /// The same, if so many were `free` and the network held so many.
    pub fn would_admit(&self, purpose: Purpose, free: usize, held: impl FnOnce() -> usize) -> bool {
        let free = match purpose {
            Purpose::Record if !self.may_keep_records() => return false,
            // Its payload finds one.
            Purpose::Record => free.saturating_sub(1),
            Purpose::Payload => free,
            Purpose::Api => return !self.api.is_empty(),
        };
        free > self.size / BUFFERS_FOR_FEW || (free > 0 && held() < free)
    }

    /// Whether there are others who have waited for longer than who works with the pool from now on. Who gives a buffer
    /// back takes no other one before they have had their turn: else one that is never given back for long would be as
    /// good as lost to them.
    pub(super) fn yield_to(&mut self, others_wait: bool) {
        self.others_wait = others_wait;
    }

    /// Beginnings of records may take one more.
    pub(super) fn may_keep_records(&self) -> bool {
        self.records + (self.size / BUFFERS_FOR_PAYLOAD).max(1) < self.size
    }

    /// Relay buffers that count for `network`.
    pub(crate) fn held_by(&self, network: Network) -> usize {
        self.holders[..self.size].iter().flatten().filter(|want| want.network == network).count()
    }

    /// Ends the use of a buffer.
    pub fn give(&mut self, buffer: Buffer) {
        let want = self.holders[buffer.0 as usize].take();
        self.records -= usize::from(want.is_some_and(|want| want.purpose == Purpose::Record));
        if (buffer.0 as usize) < self.size {
            self.relay.push(buffer.0)
        } else {
            self.api.push(buffer.0)
        }
        std::mem::forget(buffer);
    }

    /// The bytes behind a buffer.
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        let at = FIRST + buffer.0 as usize * BUFFER;
        &mut self.memory[at..at + BUFFER]
    }

    /// Relay buffers that are not in use.
    pub fn free(&self) -> usize {
        self.relay.len()
    }

    /// Whether there is any, fair or not.
    pub fn has_any(&self, purpose: Purpose) -> bool {
        !if purpose == Purpose::Api { &self.api } else { &self.relay }.is_empty()
    }

    /// How many relay buffers there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Relay buffers in use.
    pub fn used(&self) -> usize {
        self.size - self.relay.len()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        debug_assert!(std::thread::panicking(), "a relay buffer was lost");
    }
}

/// What one turn of the loop works with: shared by all connections, held by none.
pub struct IoContext {
    pub pool: Pool,
    /// Where encrypted records are looked at before they are taken from the kernel.
    pub scratch: Box<[u8]>,
    /// Where a frame is put together with its header, in order to be sealed.
    pub frame: Box<[u8]>,
    /// Handshake messages and alerts on their way into an outbox.
    pub reply: Vec<u8>,
    /// Room that is named to the kernel when bytes are to be thrown away; never written to.
    pub nowhere: Vec<u8>,
}

impl IoContext {
    /// With these buffers.
    pub fn new(pool: Pool) -> Self {
        let [scratch, frame] = [BUFFER, MAX_FRAME].map(|size| vec![0; size].into());
        Self { pool, scratch, frame, reply: Vec::new(), nowhere: Vec::with_capacity(BUFFER) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(purpose: Purpose, address: u32) -> Want {
        Want { purpose, network: Network::V4(address) }
    }

    /// Takes as many as it may for one network.
    fn take_all(pool: &mut Pool, want: Want) -> Vec<Buffer> {
        std::iter::from_fn(|| pool.admits(want).then(|| pool.take(want)).flatten()).collect()
    }

    #[test]
    fn every_buffer_is_lent_once_and_is_its_own() {
        let mut pool = Pool::new(3, 0).unwrap();
        let lent = take_all(&mut pool, want(Purpose::Payload, 1));
        assert_eq!(lent.len(), 3);
        for (i, buffer) in lent.iter().enumerate() {
            pool.bytes(buffer).fill(i as u8 + 1);
        }
        for (i, buffer) in lent.iter().enumerate() {
            assert!(pool.bytes(buffer).iter().all(|&b| b == i as u8 + 1));
        }
        lent.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn payload_behind_a_header_begins_a_cache_line() {
        let mut pool = Pool::new(3, 0).unwrap();
        for buffer in take_all(&mut pool, want(Purpose::Payload, 1)) {
            assert_eq!(pool.bytes(&buffer)[HEADER..].as_ptr().addr() % 64, 0);
            pool.give(buffer);
        }
    }

    #[test]
    fn what_is_set_aside_cannot_be_taken_by_others() {
        let mut pool = Pool::new(8, 2).unwrap();
        let lent = [Purpose::Record, Purpose::Payload, Purpose::Api].map(|p| take_all(&mut pool, want(p, 1)));
        assert_eq!(lent.each_ref().map(Vec::len), [5, 1, 2]);
        assert_eq!(pool.used(), 6);
        lent.into_iter().flatten().for_each(|buffer| pool.give(buffer));
        assert_eq!((pool.used(), pool.has_any(Purpose::Api)), (0, true));
    }

    #[test]
    fn a_network_that_holds_many_leaves_some_to_those_that_hold_few() {
        for (size, shares) in [(2, [2, 0, 0]), (4, [3, 1, 0]), (8, [6, 1, 1]), (1024, [768, 128, 64])] {
            let mut pool = Pool::new(size, 0).unwrap();
            let lent = [1, 2, 3].map(|address| take_all(&mut pool, want(Purpose::Payload, address)));
            assert_eq!(lent.each_ref().map(Vec::len), shares, "of {size}");
            lent.into_iter().flatten().for_each(|buffer| pool.give(buffer));
        }
    }

    /// Whoever may begin to keep a record finds a buffer for the payload that is in it.
    #[test]
    fn a_record_leaves_one_to_its_payload() {
        for size in 2..40 {
            for crowd in 0..size {
                let mut pool = Pool::new(size, 0).unwrap();
                let mut lent: Vec<_> = (0..crowd).map_while(|_| pool.take(want(Purpose::Payload, 1))).collect();
                lent.extend([1, 2].into_iter().flat_map(|address| take_all(&mut pool, want(Purpose::Record, address))));
                assert!(pool.free() > 0, "{crowd} of {size}");
                lent.into_iter().for_each(|buffer| pool.give(buffer));
            }
        }
    }

    #[test]
    fn the_warm_buffer_is_used_again() {
        let mut pool = Pool::new(2, 0).unwrap();
        let first = pool.take(want(Purpose::Payload, 1)).unwrap();
        let number = first.0;
        pool.give(first);
        let again = pool.take(want(Purpose::Payload, 1)).unwrap();
        assert_eq!(again.0, number);
        pool.give(again);
    }

    #[test]
    #[should_panic(expected = "a relay buffer was lost")]
    #[cfg(debug_assertions)]
    fn a_lost_buffer_is_noticed() {
        let mut pool = Pool::new(1, 0).unwrap();
        drop(pool.take(want(Purpose::Payload, 1)));
    }
}
