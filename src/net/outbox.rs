//! Bytes on their way out of one socket that the peer has not taken yet.
//!
//! Empty, it holds no buffer. It never grows beyond one buffer: who finds it full stops reading.

use super::buffers::{Buffer, Pool};
use super::stream::Stream;
use crate::limits::BUFFER;
use std::io::{self, ErrorKind};

/// At most one buffer of bytes, in order.
#[derive(Debug, Default)]
pub enum Outbox {
    #[default]
    Empty,
    Holding {
        buffer: Buffer,
        start: usize,
        end: usize,
    },
}

/// The pool is empty, or the one buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Outbox {
    /// Nothing left to write.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The free room behind what is held, after taking a buffer if there is none yet.
    ///
    /// Whoever asks goes on to call [`Outbox::filled`], with 0 if nothing came of it.
    pub fn room<'p>(&mut self, pool: &'p mut Pool) -> Result<&'p mut [u8], NoRoom> {
        if self.is_empty() {
            let buffer = pool.take().ok_or(NoRoom)?;
            *self = Self::Holding { buffer, start: 0, end: 0 };
        }
        match self {
            Self::Holding { buffer, end, .. } if *end < BUFFER => Ok(&mut pool.bytes(buffer)[*end..]),
            _ => Err(NoRoom),
        }
    }

    /// `count` bytes were put into the room.
    pub fn filled(&mut self, count: usize, pool: &mut Pool) {
        if let Self::Holding { start, end, .. } = self {
            *end += count;
            debug_assert!(*end <= BUFFER);
            if start == end {
                self.clear(pool);
            }
        }
    }

    /// Adds all of `bytes` or nothing.
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) -> Result<(), NoRoom> {
        let room = self.room(pool)?;
        let Some(place) = room.get_mut(..bytes.len()) else {
            self.filled(0, pool);
            return Err(NoRoom);
        };
        place.copy_from_slice(bytes);
        self.filled(bytes.len(), pool);
        Ok(())
    }

    /// Writes until all is gone (the buffer goes back) or the kernel takes no more. Returns how many bytes went.
    pub fn flush(&mut self, stream: &mut Stream, pool: &mut Pool) -> io::Result<usize> {
        let mut sent = 0;
        while let Self::Holding { buffer, start, end } = self {
            match stream.write(&pool.bytes(buffer)[*start..*end]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent += count;
                    *start += count;
                    if start == end {
                        self.clear(pool);
                    } else {
                        // A short write means a full socket buffer: asking again would only be told so.
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    /// Gives the buffer back, with whatever is in it.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Self::Holding { buffer, .. } = std::mem::take(self) {
            pool.give(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair() -> (Stream, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::Unix(mio::net::UnixStream::from_std(ours)), theirs)
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_the_buffer_goes_back() {
        let (mut ours, mut theirs) = pair();
        let mut pool = Pool::new(1).unwrap();
        let mut outbox = Outbox::default();
        outbox.append(b"one ", &mut pool).unwrap();
        outbox.append(b"two", &mut pool).unwrap();
        assert_eq!(pool.available(), 0);
        assert_eq!(outbox.flush(&mut ours, &mut pool).unwrap(), 7);
        assert!(outbox.is_empty());
        assert_eq!(pool.available(), 1);
        let mut got = [0; 7];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one two");
    }

    #[test]
    fn an_empty_pool_and_a_full_buffer_are_told_apart_from_success() {
        let mut pool = Pool::new(1).unwrap();
        let (mut first, mut second) = (Outbox::default(), Outbox::default());
        first.append(&[1; BUFFER], &mut pool).unwrap();
        assert_eq!(first.append(b"x", &mut pool), Err(NoRoom));
        assert_eq!(second.append(b"x", &mut pool), Err(NoRoom));
        assert!(second.is_empty());
        first.clear(&mut pool);
        assert_eq!(second.append(&[0; BUFFER + 1], &mut pool), Err(NoRoom));
        assert_eq!(pool.available(), 1, "a refused append keeps no buffer");
    }
}
