//! How long to wait before trying again: twice as long each time, with jitter, from 100 ms to 30 s.

use crate::limits::{RETRY_LONGEST, RETRY_SHORTEST};
use std::time::Duration;

/// The failures in a row of one place in the pool.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: how long to wait now. Somewhere in the upper half of the range that has been reached, so
    /// that many who failed together do not come back together.
    pub(super) fn fail(&mut self) -> Duration {
        self.fail_with(uuid::Uuid::new_v4().as_u64_pair().1)
    }

    fn fail_with(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let range = RETRY_SHORTEST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        // The low bits of a version 4 UUID are all random.
        let part = (random % 1024) as u32;
        range / 2 + range / 2 * part / 1023
    }

    /// Things went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_leave_their_range() {
        for random in [0, 511, 1023, u64::MAX] {
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = (0..40).map(|_| backoff.fail_with(random)).collect();
            assert!(pauses.iter().all(|&pause| (RETRY_SHORTEST..=RETRY_LONGEST).contains(&pause)), "{pauses:?}");
            assert!(pauses.is_sorted());
            assert!(pauses[0] <= RETRY_SHORTEST * 2);
            assert!(pauses[39] >= RETRY_LONGEST / 2);
            let first_minute = pauses.iter().scan(Duration::ZERO, |sum, &pause| {
                *sum += pause;
                Some(*sum)
            });
            assert!(first_minute.filter(|sum| sum.as_secs() < 60).count() <= 12, "too many tries in a minute");
        }
    }

    #[test]
    fn jitter_spreads_and_success_starts_again() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| std::mem::take(&mut backoff).fail()).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "twenty times the same pause");
        for _ in 0..10 {
            backoff.fail();
        }
        backoff.reset();
        assert!(backoff.fail() <= RETRY_SHORTEST * 2);
    }
}
