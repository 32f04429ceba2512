//! Bytes that betray any loss, repetition or reordering: every eight of them depend on where they stand.

use super::{Peer, Talk};

const LARGEST_CHUNK: usize = 16 * 1024;
/// More than the buffers of the kernel on the way hold (the third number of tcp_rmem and tcp_wmem, each twice).
const KERNELS_HOLD_LESS: u64 = 256 << 20;

/// One endless stream of bytes, the same for the same seed. Who sends and who checks each has its own.
pub struct Payload {
    seed: u64,
    position: u64,
}

impl Payload {
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// How many bytes were taken or checked so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let start = (self.position % 8) as usize;
        let first = self.position / 8;
        let words = (start + len).div_ceil(8) as u64;
        let mut bytes = Vec::with_capacity(words as usize * 8);
        for word in first..first + words {
            bytes.extend_from_slice(&mix(self.seed, word).to_le_bytes());
        }
        self.position += len as u64;
        bytes.truncate(start + len);
        bytes.drain(..start);
        bytes
    }

    /// Fails the test unless `bytes` are the next ones.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8]) {
        let from = self.position;
        let expected = self.take(bytes.len());
        if let Some(wrong) = expected.iter().zip(bytes).position(|(a, b)| a != b) {
            panic!("stream {} differs at byte {}", self.seed, from + wrong as u64);
        }
    }

    /// Sends the next `total` bytes in chunks of up to 16 KiB.
    #[track_caller]
    pub fn send(&mut self, peer: &(impl Talk + ?Sized), total: u64) {
        let end = self.position + total;
        while self.position < end {
            let chunk = (end - self.position).min(LARGEST_CHUNK as u64) as usize;
            peer.send(&self.take(chunk));
        }
    }

    /// Sends until nobody takes any more for a while, which is how a sender meets back-pressure.
    /// What was begun is finished by [`Peer::flush`].
    #[track_caller]
    pub fn send_until_stalled(&mut self, peer: &Peer) {
        while peer.send_within(&self.take(LARGEST_CHUNK), super::SILENCE) {
            assert!(
                self.position < KERNELS_HOLD_LESS,
                "{} bytes were taken for a reader that reads nothing",
                self.position
            );
        }
    }

    /// Receives the next `total` bytes and checks them.
    #[track_caller]
    pub fn receive(&mut self, peer: &(impl Talk + ?Sized), total: u64) {
        let end = self.position + total;
        while self.position < end {
            let bytes = peer.expect_some();
            assert!(self.position + bytes.len() as u64 <= end, "more came than was sent");
            self.check(&bytes);
        }
    }
}

/// Splitmix64: a word from its place.
fn mix(seed: u64, word: u64) -> u64 {
    let mut z = seed.wrapping_mul(0xA076_1D64_78BD_642F).wrapping_add(word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
