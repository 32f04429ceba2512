//! Encrypted bytes that were taken from the kernel and have not been handed out yet.
//!
//! Two ways to read records. A peer that has proved itself is read into the loop's scratch, and what is left
//! over is kept here until the rest comes. A stranger is only looked at: the beginning of a record stays in the
//! kernel, so that a crowd that stops in the middle of one holds no buffer of ours. Without a free buffer
//! everybody is only looked at, and waits for one if all that is there is half a record: the kernel closes the
//! window on large segments that are half taken, and then no event comes.

use super::buffers::{Buffer, IoContext, Pool, Want};

/// What is kept of one link's input, at most one buffer.
#[derive(Debug, Default)]
pub(super) enum Inbox {
    #[default]
    Empty,
    /// The beginning of a record: more must come.
    Part { buffer: Buffer, len: usize },
    /// Perhaps whole records, which could not go on when they were read.
    Ready { buffer: Buffer, len: usize },
}

/// Where the rest will be kept after this reading.
pub(super) enum ReadBuffer {
    /// Nowhere: look, and take whole records only.
    None,
    Buffer {
        buffer: Buffer,
        /// Bytes that were kept before, now at the beginning of the scratch.
        kept: usize,
    },
}

impl Inbox {
    /// Lays what was kept on the scratch.
    ///
    /// `want`: what a buffer may be taken for; `None`: none may be taken.
    pub(super) fn open(&mut self, want: Option<Want>, ctx: &mut IoContext) -> ReadBuffer {
        match std::mem::take(self) {
            Self::Part { buffer, len } | Self::Ready { buffer, len } => {
                ctx.scratch[..len].copy_from_slice(&ctx.pool.bytes(&buffer)[..len]);
                ReadBuffer::Buffer { buffer, kept: len }
            }
            Self::Empty => match want.and_then(|want| ctx.pool.take(want)) {
                Some(buffer) => ReadBuffer::Buffer { buffer, kept: 0 },
                None => ReadBuffer::None,
            },
        }
    }

    /// There may be a whole record in here.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// It waits for the rest of a record.
    pub(super) fn is_part(&self) -> bool {
        matches!(self, Self::Part { .. })
    }

    /// Gives the buffer back, with whatever is in it.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        if let Self::Part { buffer, .. } | Self::Ready { buffer, .. } = std::mem::take(self) {
            pool.give(buffer);
        }
    }
}

impl ReadBuffer {
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Buffer { kept, .. } => *kept,
        }
    }

    /// Ends the reading: `rest` is kept, and the buffer goes back if there is none.
    pub(super) fn keep(self, rest: &[u8], ready: bool, pool: &mut Pool) -> Inbox {
        let Self::Buffer { buffer, .. } = self else { return Inbox::Empty };
        let len = rest.len();
        if len == 0 {
            pool.give(buffer);
            return Inbox::Empty;
        }
        pool.bytes(&buffer)[..len].copy_from_slice(rest);
        if ready { Inbox::Ready { buffer, len } } else { Inbox::Part { buffer, len } }
    }
}
