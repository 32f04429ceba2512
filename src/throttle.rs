//! Saying something once, not a thousand times a second.
//!
//! Whatever other machines can cause to be logged goes through here. What there is one of in a process has a
//! [`Throttle`]. What there are many of, such as addresses and ports, has one each in [`Throttles`], and all of them
//! share one [`Budget`]: without it a crowd of addresses at many ports would fill the disk.

use crate::bucket::Bucket;
use crate::limits::{LOG_INTERVAL, LOG_LINES};
use crate::plural::counted;
use log::warn;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// At most one word in this time about the same thing.
const PAUSE: Duration = Duration::from_secs(10);
/// How often the log says how many lines were held back.
const SUMMARY: Duration = Duration::from_secs(60);

/// The budget of this process.
static BUDGET: Mutex<Budget> = Mutex::new(Budget::new());

/// Decides whether an event is logged now, and counts those that were not.
#[derive(Debug, Default)]
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

    fn is_recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last + PAUSE)
    }
}

/// A throttle for each of many things, of which others decide how many there are.
///
/// Who is not in the table needs the budget to come in, so that no more than [`LOG_LINES`] are in it at a time.
#[derive(Debug)]
pub(crate) struct Throttles<K> {
    said: HashMap<K, Throttle>,
}

impl<K> Default for Throttles<K> {
    fn default() -> Self {
        Self { said: HashMap::new() }
    }
}

impl<K: Eq + Hash> Throttles<K> {
    /// As [`Throttle::may_say`], about `key`.
    pub(crate) fn may_say(&mut self, key: K, now: Instant) -> Option<u64> {
        self.may_say_within(&mut budget(), key, now)
    }

    fn may_say_within(&mut self, budget: &mut Budget, key: K, now: Instant) -> Option<u64> {
        if let Some(throttle) = self.said.get_mut(&key).filter(|throttle| throttle.is_recent(now)) {
            return throttle.may_say(now);
        }
        if !budget.take(now) {
            return None;
        }
        if self.said.len() >= LOG_LINES {
            self.said.retain(|_, throttle| {
                let stays = throttle.is_recent(now);
                budget.held_back += if stays { 0 } else { throttle.unsaid };
                stays
            });
        }
        self.said.entry(key).or_default().may_say(now)
    }
}

/// How many lines all [`Throttles`] together may say: [`LOG_LINES`] at once, and then one in [`LOG_INTERVAL`].
#[derive(Debug)]
struct Budget {
    bucket: Bucket,
    /// Lines that were held back since the log last said so.
    held_back: u64,
    /// When that was.
    reported: Option<Instant>,
}

impl Budget {
    const fn new() -> Self {
        Self { bucket: Bucket::new(), held_back: 0, reported: None }
    }

    /// Whether one more line may be said. One that may not is counted.
    fn take(&mut self, now: Instant) -> bool {
        let may = self.bucket.try_fill(LOG_INTERVAL, LOG_INTERVAL * LOG_LINES as u32, now);
        self.held_back += u64::from(!may);
        may
    }

    /// How many lines were held back, if there are any and that was not reported lately.
    fn summary(&mut self, now: Instant) -> Option<u64> {
        if self.held_back == 0 || self.reported.is_some_and(|reported| now < reported + SUMMARY) {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Whether the log has room for one more line about what there are many of.
pub(crate) fn is_within_budget(now: Instant) -> bool {
    budget().take(now)
}

/// Has the log tell, once a minute, how many lines were held back. To be called every now and then.
pub(crate) fn tell_held_back(now: Instant) {
    if let Some(count) = budget().summary(now) {
        let lines = counted(count, "more log line");
        let were = if count == 1 { "was" } else { "were" };
        warn!("{lines} about single addresses and ports {were} held back: there were too many");
    }
}

fn budget() -> MutexGuard<'static, Budget> {
    BUDGET.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn each_key_has_a_line_in_its_time() {
        let (mut throttles, mut budget, start) = (Throttles::default(), Budget::new(), Instant::now());
        let mut say = |key, now| throttles.may_say_within(&mut budget, key, now);
        assert_eq!([say(1, start), say(2, start)], [Some(0), Some(0)]);
        assert!((0..1000).all(|_| say(1, start).is_none()));
        assert_eq!([say(1, start + PAUSE), say(2, start + PAUSE)], [Some(1000), Some(0)]);
        assert_eq!(budget.summary(start + PAUSE), None);
    }

    #[test]
    fn however_many_keys_there_are_the_lines_are_limited_and_every_event_is_counted() {
        const SECONDS: u64 = 600;
        const EACH: u64 = 2000;
        let (mut throttles, mut budget, start) = (Throttles::default(), Budget::new(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for second in 0..SECONDS {
            let now = start + Duration::from_secs(second);
            for key in 0..EACH {
                if let Some(unsaid) = throttles.may_say_within(&mut budget, key, now) {
                    lines += 1;
                    counted += unsaid;
                }
            }
            assert!(throttles.said.len() <= LOG_LINES + 2 * PAUSE.as_secs() as usize, "{}", throttles.said.len());
        }
        let most = LOG_LINES as u64 + SECONDS / LOG_INTERVAL.as_secs() + 1;
        assert!(lines <= most, "{lines} lines, at most {most}");
        let unsaid: u64 = throttles.said.values().map(|throttle| throttle.unsaid).sum();
        let end = start + Duration::from_secs(SECONDS);
        assert_eq!(lines + counted + unsaid + budget.summary(end).unwrap_or(0), SECONDS * EACH);
    }

    #[test]
    fn what_was_held_back_is_told_once_a_minute() {
        let (mut budget, start) = (Budget::new(), Instant::now());
        assert!((0..LOG_LINES).all(|_| budget.take(start)));
        assert!(!budget.take(start) && !budget.take(start));
        assert_eq!(budget.summary(start), Some(2));
        assert!(!budget.take(start));
        assert_eq!(budget.summary(start + SUMMARY / 2), None);
        assert_eq!(budget.summary(start + SUMMARY), Some(1));
        assert_eq!(budget.summary(start + SUMMARY * 2), None);
        assert!(budget.take(start + LOG_INTERVAL));
    }
}
