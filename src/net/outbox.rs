//! Bytes on their way out of one socket that the peer has not taken yet.
//!
//! Empty, it holds no buffer. It never grows beyond one buffer: who finds it full stops reading.

use super::buffers::{Buffer, Pool, Want};
use super::stream::Stream;
use super::tls::MAX_MESSAGE;
use crate::limits::BUFFER;
use crate::network::Network;
use std::io::{self, ErrorKind};
use std::ops::Range;

/// At most one buffer of bytes, in order.
#[derive(Debug)]
pub struct Outbox {
    /// What buffers it takes.
    want: Want,
    held: Held,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// `mark`: where `start` was when the reader had last taken enough to count as progress.
    Buffer { buffer: Buffer, start: u32, end: u32, mark: u32 },
    /// While no buffer was free: the rest of a message of which the kernel has taken the beginning, since what has been
    /// sealed cannot be taken back; or one whose record is in a buffer. Rare, and as short as a message.
    Rest { bytes: Vec<u8>, start: usize },
}

/// The pool is empty, or the one buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Outbox {
    /// Empty. `want`: for payload, or for the API.
    pub fn new(want: Want) -> Self {
        Self { want, held: Held::Nothing }
    }

    /// What buffers it takes.
    pub fn want(&self) -> Want {
        self.want
    }

    /// From now on what it takes counts for `network`.
    pub(crate) fn hold_for(&mut self, network: Network) {
        self.want.network = network;
    }

    /// Nothing left to write.
    pub fn is_empty(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// [`Outbox::room`] would find some, and it is fair to take it.
    pub fn has_room(&self, pool: &Pool) -> bool {
        match &self.held {
            Held::Nothing => pool.admits(self.want),
            Held::Buffer { end, .. } => (*end as usize) < BUFFER,
            Held::Rest { .. } => false,
        }
    }

    /// The free room behind what is held, after taking a buffer if there is none yet.
    ///
    /// Whoever asks goes on to call [`Outbox::filled`], with 0 if nothing came of it.
    pub fn room<'p>(&mut self, pool: &'p mut Pool) -> Result<&'p mut [u8], NoRoom> {
        if self.is_empty() {
            let buffer = pool.take(self.want).ok_or(NoRoom)?;
            self.held = Held::Buffer { buffer, start: 0, end: 0, mark: 0 };
        }
        match &self.held {
            Held::Buffer { buffer, end, .. } if (*end as usize) < BUFFER => {
                Ok(&mut pool.bytes(buffer)[*end as usize..])
            }
            _ => Err(NoRoom),
        }
    }

    /// `count` bytes were put into the room.
    pub fn filled(&mut self, count: usize, pool: &mut Pool) {
        if let Held::Buffer { start, end, .. } = &mut self.held {
            debug_assert!(*end as usize + count <= BUFFER);
            *end += count as u32;
            if start == end {
                self.clear(pool);
            }
        }
    }

    /// What is to go out is at this place of the room, which was all free.
    pub fn filled_at(&mut self, place: Range<usize>, pool: &mut Pool) {
        self.filled(place.end, pool);
        if let Held::Buffer { start, mark, .. } = &mut self.held {
            debug_assert_eq!(*start, 0);
            (*start, *mark) = (place.start as u32, place.start as u32);
            if place.is_empty() {
                self.clear(pool);
            }
        }
    }

    /// Adds all of `bytes` or nothing.
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) -> Result<(), NoRoom> {
        if let Held::Rest { bytes: held, .. } = &mut self.held {
            return extend(held, bytes);
        }
        let room = self.room(pool)?;
        let Some(place) = room.get_mut(..bytes.len()) else {
            self.filled(0, pool);
            return Err(NoRoom);
        };
        place.copy_from_slice(bytes);
        self.filled(bytes.len(), pool);
        Ok(())
    }

    /// The same for the rest of a message that has begun to go out: if no buffer is free it is kept without one.
    pub fn append_rest(&mut self, bytes: &[u8], pool: &mut Pool) -> Result<(), NoRoom> {
        match self.append(bytes, pool) {
            Err(NoRoom) if self.is_empty() && bytes.len() <= BUFFER => {
                self.keep_rest(bytes);
                Ok(())
            }
            result => result,
        }
    }

    /// The same without looking for a buffer. Nothing is held yet.
    pub fn keep_rest(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty() && bytes.len() <= BUFFER);
        if !bytes.is_empty() {
            self.held = Held::Rest { bytes: bytes.to_vec(), start: 0 };
        }
    }

    /// Adds a message to what is held without a buffer, or to nothing.
    pub fn append_without_buffer(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        match &mut self.held {
            Held::Nothing => self.keep_rest(bytes),
            Held::Buffer { .. } => return Err(NoRoom),
            Held::Rest { bytes: held, .. } => return extend(held, bytes),
        }
        Ok(())
    }

    /// Something is held without a buffer.
    pub fn holds_rest(&self) -> bool {
        matches!(self.held, Held::Rest { .. })
    }

    /// What is held without a buffer is put into one, if there is any.
    pub fn settle(&mut self, pool: &mut Pool) {
        if let Held::Rest { bytes, start } = &self.held {
            let Some(buffer) = pool.take(self.want) else { return };
            let rest = &bytes[*start..];
            pool.bytes(&buffer)[..rest.len()].copy_from_slice(rest);
            self.held = Held::Buffer { buffer, start: 0, end: rest.len() as u32, mark: 0 };
        }
    }

    /// Writes until all is gone (the buffer goes back) or the kernel takes no more. Returns how many bytes went.
    pub fn flush(&mut self, stream: &mut Stream, pool: &mut Pool) -> io::Result<usize> {
        let mut sent = 0;
        loop {
            let bytes = match &self.held {
                Held::Nothing => return Ok(sent),
                Held::Buffer { buffer, start, end, .. } => &pool.bytes(buffer)[*start as usize..*end as usize],
                Held::Rest { bytes, start } => &bytes[*start..],
            };
            let most = bytes.len();
            match stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent += count;
                    if count == most {
                        self.clear(pool);
                    } else {
                        self.has_gone(count);
                        // A short write means a full socket buffer: asking again would only be told so.
                        return Ok(sent);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(sent),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn has_gone(&mut self, count: usize) {
        match &mut self.held {
            Held::Nothing => {}
            Held::Buffer { start, .. } => *start += count as u32,
            Held::Rest { start, .. } => *start += count,
        }
    }

    /// Whether the reader has taken as much as a record since this was last true. A byte now and then is no progress.
    pub fn has_progressed(&mut self) -> bool {
        match &mut self.held {
            Held::Buffer { start, mark, .. } if *start - *mark >= MAX_MESSAGE as u32 => {
                *mark = *start;
                true
            }
            _ => false,
        }
    }

    /// Gives the buffer back, with whatever is in it.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Held::Buffer { buffer, .. } = std::mem::take(&mut self.held) {
            pool.give(buffer);
        }
    }
}

fn extend(held: &mut Vec<u8>, bytes: &[u8]) -> Result<(), NoRoom> {
    if held.len() + bytes.len() > BUFFER {
        return Err(NoRoom);
    }
    held.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::Purpose;
    use std::io::Read;

    fn pair() -> (Stream, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::Unix(mio::net::UnixStream::from_std(ours)), theirs)
    }

    fn outbox() -> Outbox {
        Outbox::new(Want { purpose: Purpose::Payload, network: Network::V4(1) })
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_the_buffer_goes_back() {
        let (mut ours, mut theirs) = pair();
        let mut pool = Pool::new(1, 0).unwrap();
        let mut outbox = outbox();
        outbox.append(b"one ", &mut pool).unwrap();
        outbox.append(b"two", &mut pool).unwrap();
        assert_eq!(pool.free(), 0);
        assert_eq!(outbox.flush(&mut ours, &mut pool).unwrap(), 7);
        assert!(outbox.is_empty());
        assert_eq!(pool.free(), 1);
        let mut got = [0; 7];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one two");
    }

    #[test]
    fn an_empty_pool_and_a_full_buffer_are_told_apart_from_success() {
        let mut pool = Pool::new(1, 0).unwrap();
        let (mut first, mut second) = (outbox(), outbox());
        first.append(&[1; BUFFER], &mut pool).unwrap();
        assert_eq!(first.append(b"x", &mut pool), Err(NoRoom));
        assert_eq!(second.append(b"x", &mut pool), Err(NoRoom));
        assert!(second.is_empty());
        first.clear(&mut pool);
        assert_eq!(second.append(&[0; BUFFER + 1], &mut pool), Err(NoRoom));
        assert_eq!(pool.free(), 1, "a refused append keeps no buffer");
    }

    #[test]
    fn what_needed_no_buffer_is_put_into_one() {
        let (mut ours, mut theirs) = pair();
        let mut pool = Pool::new(1, 0).unwrap();
        let mut outbox = outbox();
        let lent = pool.take(outbox.want()).unwrap();
        outbox.append_without_buffer(b"one ").unwrap();
        outbox.append_without_buffer(b"two").unwrap();
        outbox.settle(&mut pool);
        assert!(outbox.holds_rest(), "there is none");
        pool.give(lent);
        outbox.settle(&mut pool);
        assert!(!outbox.holds_rest() && pool.free() == 0);
        assert_eq!(outbox.flush(&mut ours, &mut pool).unwrap(), 7);
        let mut got = [0; 7];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!((&got, pool.free()), (b"one two", 1));
    }

    #[test]
    fn the_rest_of_a_message_needs_no_buffer() {
        let (mut ours, mut theirs) = pair();
        let mut pool = Pool::new(0, 0).unwrap();
        let mut outbox = outbox();
        assert_eq!(outbox.append(b"x", &mut pool), Err(NoRoom));
        outbox.append_rest(b"one ", &mut pool).unwrap();
        outbox.append(b"two", &mut pool).unwrap();
        assert!(outbox.room(&mut pool).is_err() && !outbox.is_empty());
        assert_eq!(outbox.flush(&mut ours, &mut pool).unwrap(), 7);
        let mut got = [0; 7];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one two");
        assert!(outbox.is_empty());
    }
}
