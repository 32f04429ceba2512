//! The fixed pool of relay buffers, and the desk on which one turn of the loop works.
//!
//! All of it is reserved once, at start. Pages are only touched when used, so that a pool that is never needed costs
//! no memory: it is mapped, and not allocated, because not every C library leaves zeroed memory untouched. The loop owns the one desk; idle connections hold nothing of it.

use crate::limits::BUFFER;
use memmap2::MmapMut;
use std::io;

/// Buffers of [`BUFFER`] bytes each. Last given back is first taken, so that the warm one is used again.
///
/// Nobody waits in a circle: the beginnings of records leave some buffers to payload, without which no record could
/// go on, and the control API has its own.
pub struct Pool {
    memory: MmapMut,
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

/// One relay buffer of so many is not lent for beginnings of records, but one at least.
const FOR_PAYLOAD: usize = 8;

/// The right to use one buffer of the pool. It goes back with [`Pool::give`] and is never dropped.
#[derive(Debug)]
pub struct Buffer(u32);

impl Pool {
    /// Reserves `relay` buffers, and `api` more for the API. Errors: there is no room for them in the address space, or
    /// the system has not that much memory.
    pub fn new(relay: usize, api: usize) -> io::Result<Self> {
        let too_many = || io::Error::new(io::ErrorKind::OutOfMemory, format!("no room for {relay} relay buffers"));
        let count = relay.checked_add(api).ok_or_else(too_many)?;
        let bytes = count.checked_mul(BUFFER).ok_or_else(too_many)?;
        let numbers = u32::try_from(count).map_err(|_| too_many())?;
        let first = numbers - api as u32;
        let memory = MmapMut::map_anon(bytes)?;
        Ok(Self { memory, relay: (0..first).rev().collect(), api: (first..numbers).rev().collect(), size: relay })
    }

    /// A buffer, or `None` when all that are for this purpose are in use: wait one's turn.
    pub fn take(&mut self, purpose: Purpose) -> Option<Buffer> {
        if self.available(purpose) == 0 {
            return None;
        }
        if purpose == Purpose::Api { self.api.pop() } else { self.relay.pop() }.map(Buffer)
    }

    /// Ends the use of a buffer.
    pub fn give(&mut self, buffer: Buffer) {
        if (buffer.0 as usize) < self.size {
            self.relay.push(buffer.0)
        } else {
            self.api.push(buffer.0)
        }
        std::mem::forget(buffer);
    }

    /// The bytes behind a buffer.
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        let at = buffer.0 as usize * BUFFER;
        &mut self.memory[at..at + BUFFER]
    }

    /// How many may still be taken.
    pub fn available(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Record => self.relay.len().saturating_sub((self.size / FOR_PAYLOAD).max(1)),
            Purpose::Payload => self.relay.len(),
            Purpose::Api => self.api.len(),
        }
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
pub struct Desk {
    pub pool: Pool,
    /// Where encrypted records are looked at before they are taken from the kernel.
    pub scratch: Box<[u8]>,
    /// Handshake messages and alerts on their way into an outbox.
    pub reply: Vec<u8>,
    /// Room that is named to the kernel when bytes are to be thrown away; never written to.
    pub nowhere: Vec<u8>,
}

impl Desk {
    /// A desk with these buffers.
    pub fn new(pool: Pool) -> Self {
        Self { pool, scratch: vec![0; BUFFER].into(), reply: Vec::new(), nowhere: Vec::with_capacity(BUFFER) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_lent_once_and_is_its_own() {
        let mut pool = Pool::new(3, 0).unwrap();
        let lent: Vec<_> = std::iter::from_fn(|| pool.take(Purpose::Payload)).collect();
        assert_eq!(lent.len(), 3);
        for (i, buffer) in lent.iter().enumerate() {
            pool.bytes(buffer).fill(i as u8 + 1);
        }
        for (i, buffer) in lent.iter().enumerate() {
            assert!(pool.bytes(buffer).iter().all(|&b| b == i as u8 + 1));
        }
        lent.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.available(Purpose::Payload), 3);
    }

    #[test]
    fn what_is_set_aside_cannot_be_taken_by_others() {
        let mut pool = Pool::new(9, 2).unwrap();
        let mut all = |purpose| std::iter::from_fn(|| pool.take(purpose)).collect::<Vec<_>>();
        let [records, payload, api] = [Purpose::Record, Purpose::Payload, Purpose::Api].map(&mut all);
        assert_eq!([records.len(), payload.len(), api.len()], [8, 1, 2]);
        assert_eq!(pool.used(), 9);
        records.into_iter().chain(payload).chain(api).for_each(|buffer| pool.give(buffer));
        assert_eq!((pool.used(), pool.available(Purpose::Api), pool.available(Purpose::Record)), (0, 2, 8));
    }

    #[test]
    fn the_warm_buffer_is_used_again() {
        let mut pool = Pool::new(2, 0).unwrap();
        let first = pool.take(Purpose::Payload).unwrap();
        let number = first.0;
        pool.give(first);
        let again = pool.take(Purpose::Payload).unwrap();
        assert_eq!(again.0, number);
        pool.give(again);
    }

    #[test]
    #[should_panic(expected = "a relay buffer was lost")]
    #[cfg(debug_assertions)]
    fn a_lost_buffer_is_noticed() {
        let mut pool = Pool::new(1, 0).unwrap();
        drop(pool.take(Purpose::Payload));
    }
}
