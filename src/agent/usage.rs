//! How many connections a service needs. No I/O.

use crate::limits::UNUSED;
use std::time::Instant;

/// How many of a service's connections were in use at the same time, lately.
pub(super) struct Usage {
    since: Instant,
    /// In the time before `since`, and from then on.
    before: u32,
    most: u32,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, before: u32::MAX / 2, most: 0 }
    }

    /// So many are in use. Returns the most in the last [`UNUSED`] at least.
    pub(super) fn note(&mut self, used: usize, now: Instant) -> usize {
        if now >= self.since + UNUSED {
            (self.since, self.before, self.most) = (now, self.most, 0);
        }
        self.most = self.most.max(used.try_into().unwrap_or(u32::MAX));
        self.most.max(self.before) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_use_within_the_time_counts() {
        let start = Instant::now();
        let mut usage = Usage::new(start);
        assert!(usage.note(3, start) > 1_000_000, "nothing is known of the time before");
        assert_eq!(usage.note(1, start + UNUSED), 3);
        assert_eq!(usage.note(2, start + UNUSED * 3 / 2), 3);
        assert_eq!(usage.note(0, start + UNUSED * 2), 2);
        assert_eq!(usage.note(0, start + UNUSED * 3), 0);
    }
}
