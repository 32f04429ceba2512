//! The fixed pool of relay buffers, and the desk on which one turn of the loop works.
//!
//! All of it is reserved once, at start. Pages are only touched when used, so that a pool that is never needed costs
//! no memory: it is mapped, and not allocated, because not every C library leaves zeroed memory untouched. The loop owns the one desk; idle connections hold nothing of it.

use crate::limits::BUFFER;
use memmap2::MmapMut;
use std::io;

/// Buffers of [`BUFFER`] bytes each. Last given back is first taken, so that the warm one is used again.
pub struct Pool {
    memory: MmapMut,
    free: Vec<u32>,
}

/// The right to use one buffer of the pool. It goes back with [`Pool::give`] and is never dropped.
#[derive(Debug)]
pub struct Buffer(u32);

impl Pool {
    /// Reserves `count` buffers. Errors: there is no room for them in the address space.
    pub fn new(count: usize) -> io::Result<Self> {
        let too_many = || io::Error::new(io::ErrorKind::OutOfMemory, format!("no room for {count} relay buffers"));
        let size = count.checked_mul(BUFFER).ok_or_else(too_many)?;
        let numbers = u32::try_from(count).map_err(|_| too_many())?;
        Ok(Self { memory: MmapMut::map_anon(size)?, free: (0..numbers).rev().collect() })
    }

    /// A buffer, or `None` when all are in use: wait one's turn.
    pub fn take(&mut self) -> Option<Buffer> {
        self.free.pop().map(Buffer)
    }

    /// Ends the use of a buffer.
    pub fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer.0);
        std::mem::forget(buffer);
    }

    /// The bytes behind a buffer.
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        let at = buffer.0 as usize * BUFFER;
        &mut self.memory[at..at + BUFFER]
    }

    /// How many may still be taken.
    pub fn available(&self) -> usize {
        self.free.len()
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
    /// A desk with `buffers` relay buffers. Errors: see [`Pool::new`].
    pub fn new(buffers: usize) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::new(buffers)?,
            scratch: vec![0; BUFFER].into(),
            reply: Vec::new(),
            nowhere: Vec::with_capacity(BUFFER),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_lent_once_and_is_its_own() {
        let mut pool = Pool::new(3).unwrap();
        let lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(lent.len(), 3);
        for (i, buffer) in lent.iter().enumerate() {
            pool.bytes(buffer).fill(i as u8 + 1);
        }
        for (i, buffer) in lent.iter().enumerate() {
            assert!(pool.bytes(buffer).iter().all(|&b| b == i as u8 + 1));
        }
        lent.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.available(), 3);
    }

    #[test]
    fn the_warm_buffer_is_used_again() {
        let mut pool = Pool::new(2).unwrap();
        let first = pool.take().unwrap();
        let number = first.0;
        pool.give(first);
        let again = pool.take().unwrap();
        assert_eq!(again.0, number);
        pool.give(again);
    }

    #[test]
    #[should_panic(expected = "a relay buffer was lost")]
    #[cfg(debug_assertions)]
    fn a_lost_buffer_is_noticed() {
        let mut pool = Pool::new(1).unwrap();
        drop(pool.take());
    }
}
