//! A leaky bucket: how much may happen at once, and how fast after that. Knows no clock.

use std::time::{Duration, Instant};

/// Its level is measured by the time that it takes to run empty.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    empty_at: Option<Instant>,
}

impl Bucket {
    pub(crate) const fn new() -> Self {
        Self { empty_at: None }
    }

    pub(crate) fn level(&self, now: Instant) -> Duration {
        self.empty_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Fills `more` in, as long as that stays below `most`. Returns the level.
    pub(crate) fn fill(&mut self, more: Duration, most: Duration, now: Instant) -> Duration {
        let level = (self.level(now) + more).min(most);
        self.empty_at = Some(now + level);
        level
    }

    /// Fills `more` in if that stays below `most`. False: there is no room for it.
    pub(crate) fn try_fill(&mut self, more: Duration, most: Duration, now: Instant) -> bool {
        let fits = self.level(now) + more <= most;
        if fits {
            self.fill(more, most, now);
        }
        fits
    }
}
