//! Random numbers that can be had again.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// Xorshift: the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From 0 to `limit` - 1.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit.max(1)
    }

    pub fn any<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Another one, for another thread.
    pub fn fork(&mut self) -> Self {
        Self::new(self.below(usize::MAX) as u64)
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A seed from the environment, else another one each time. Whoever takes it prints it.
pub fn seed(name: &str) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    number(name, now % 1_000_000_007)
}
