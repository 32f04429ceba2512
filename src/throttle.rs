//! Saying something once, not a thousand times a second.

use std::time::{Duration, Instant};

/// At most one word in this time about the same thing.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides whether an event is logged now, and counts those that were not.
#[derive(Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// `Some(n)`: say it now, n more of the kind went unsaid before. `None`: not now.
    pub(crate) fn may_say(&mut self, now: Instant) -> Option<u64> {
        self.may_say_after(PAUSE, now)
    }

    /// The same with a pause of one's own.
    pub(crate) fn may_say_after(&mut self, pause: Duration, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + pause) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What a log line ends with when others of its kind went unsaid.
pub(crate) fn and_more(unsaid: u64) -> String {
    if unsaid == 0 { String::new() } else { format!(" (and {unsaid} more since the last such line)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_line_and_a_count() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.may_say(start), Some(0));
        assert!((0..5).all(|_| throttle.may_say(start).is_none()));
        assert_eq!(throttle.may_say(start + PAUSE), Some(5));
        assert_eq!(throttle.may_say(start + PAUSE * 2), Some(0));
    }
}
