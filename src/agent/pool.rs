//! The places of the pool: which connections are there, which are to be tried, and when. No I/O.
//!
//! While none is authorized only the first place is tried: a Connector that is down, or that refuses the passcode,
//! sees one attempt at a time and not as many as there are places. A place that failed rests: twice as long each time,
//! with jitter, from 100 ms to 30 s.
//!
//! With version 2 the Connector asks for more as they are needed. A place beyond those that are always kept is not tried
//! again when its connection is gone.

use crate::limits::{LINES, RETRY_LONGEST, RETRY_SHORTEST, UNDERWAY};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Names a place of the pool.
pub(super) type SlotId = usize;

/// All places of an agent.
pub(super) struct Pool {
    places: Vec<Slot>,
    /// So many are always to be filled.
    kept: u32,
    authorized: usize,
    underway: usize,
    spare: u32,
}

struct Slot {
    stage: Stage,
    /// In a row.
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Empty, and not to be tried before this.
    Resting(Instant),
    /// A connection is being made.
    Underway,
    /// A connection is there.
    Authorized,
    /// Empty, and not needed.
    Spare,
}

impl Pool {
    /// `count` places, all of which may be tried at once.
    pub(super) fn new(count: usize, now: Instant) -> Self {
        let places = (0..count).map(|_| Slot { stage: Stage::Resting(now), failures: 0 });
        Self { places: places.collect(), kept: count as u32, authorized: 0, underway: 0, spare: 0 }
    }

    /// So many are to be kept from now on, if it were fewer.
    pub(super) fn keep(&mut self, count: usize, now: Instant) {
        self.kept = self.kept.max(count as u32);
        self.grow((self.kept as usize).saturating_sub(self.size()), now);
    }

    /// How many connections are there that nobody needs, if no more than `used` were in use at the same time.
    pub(super) fn surplus(&self, used: usize) -> usize {
        self.authorized.saturating_sub(used + self.kept as usize)
    }

    /// So many more are to be filled.
    pub(super) fn grow(&mut self, count: usize, now: Instant) {
        for _ in 0..count {
            match self.places.iter().position(|slot| slot.stage == Stage::Spare) {
                Some(place) => {
                    self.places[place].failures = 0;
                    self.set(place, Stage::Resting(now));
                }
                None if self.places.len() < LINES.max(self.kept as usize) => {
                    self.places.push(Slot { stage: Stage::Resting(now), failures: 0 });
                }
                None => return,
            }
        }
    }

    /// How many connections there are to be.
    pub(super) fn size(&self) -> usize {
        self.places.len() - self.spare as usize
    }

    /// How many connections are being made.
    pub(super) fn underway(&self) -> usize {
        self.underway
    }

    /// How many connections are authorized.
    pub(super) fn authorized(&self) -> usize {
        self.authorized
    }

    /// A place that is to be tried now, if there is one. It is underway from then on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<SlotId> {
        if self.authorized > 0 && self.underway >= UNDERWAY {
            return None;
        }
        let due = |slot: &Slot| matches!(slot.stage, Stage::Resting(until) if until <= now);
        let (place, _) = self.candidates().find(|(_, slot)| due(slot))?;
        self.set(place, Stage::Underway);
        Some(place)
    }

    /// When the next place is due; `None`: no place rests, or none may be tried.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.authorized + self.underway == self.size() {
            return None;
        }
        let rests = self.candidates().filter_map(|(_, slot)| match slot.stage {
            Stage::Resting(until) => Some(until),
            _ => None,
        });
        rests.min()
    }

    fn candidates(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let count = if self.authorized == 0 { 1 } else { self.places.len() };
        self.places.iter().enumerate().filter(|(_, slot)| slot.stage != Stage::Spare).take(count)
    }

    /// The Connector has taken the passcode.
    pub(super) fn authorize(&mut self, place: SlotId) {
        self.set(place, Stage::Authorized);
    }

    /// The connection failed, or was lost before it proved its worth. Returns when the place is tried again.
    pub(super) fn fail(&mut self, place: SlotId, now: Instant) -> Instant {
        let failures = self.places[place].failures.saturating_add(1);
        self.places[place].failures = failures;
        // The low bits of a version 4 UUID are all random.
        let until = now + pause(failures, Uuid::new_v4().as_u64_pair().1);
        self.vacate(place, until);
        until
    }

    /// It is tried again at this time, whatever has failed before. Returns it.
    pub(super) fn rest(&mut self, place: SlotId, until: Instant) -> Instant {
        self.set(place, Stage::Resting(until));
        until
    }

    /// The connection has served its purpose: its place is to be filled again at once.
    pub(super) fn renew(&mut self, place: SlotId, now: Instant) {
        self.places[place].failures = 0;
        self.vacate(place, now);
    }

    /// The place is empty: it is tried again then, unless there are enough without it.
    fn vacate(&mut self, place: SlotId, until: Instant) {
        let is_kept = self.size() <= self.kept as usize;
        self.set(place, if is_kept { Stage::Resting(until) } else { Stage::Spare });
    }

    fn set(&mut self, place: SlotId, stage: Stage) {
        let before = std::mem::replace(&mut self.places[place].stage, stage);
        for (stage, change) in [(before, -1), (stage, 1)] {
            match stage {
                Stage::Resting(_) => {}
                Stage::Underway => self.underway = self.underway.saturating_add_signed(change),
                Stage::Authorized => self.authorized = self.authorized.saturating_add_signed(change),
                Stage::Spare => self.spare = self.spare.saturating_add_signed(change as i32),
            }
        }
    }
}

/// How long to wait after so many failures. Somewhere in the upper half of the range that has been reached, so that many
/// who failed together do not come back together.
fn pause(failures: u32, random: u64) -> Duration {
    let range = RETRY_SHORTEST.saturating_mul(1 << failures.min(16)).min(RETRY_LONGEST);
    range / 2 + range / 2 * (random % 1024) as u32 / 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(pool: &mut Pool, now: Instant) -> Vec<SlotId> {
        std::iter::from_fn(|| pool.take_due(now)).collect()
    }

    #[test]
    fn one_tries_the_water_and_the_others_follow() {
        let now = Instant::now();
        let mut pool = Pool::new(4, now);
        assert_eq!(take_all(&mut pool, now), [0]);
        let again = pool.fail(0, now);
        assert!(take_all(&mut pool, now).is_empty());
        assert_eq!(pool.next_due(), Some(again));
        assert_eq!(take_all(&mut pool, again), [0]);
        pool.authorize(0);
        assert_eq!(take_all(&mut pool, again), [1, 2, 3]);
    }

    #[test]
    fn what_was_asked_for_is_filled_and_given_up_when_it_is_gone() {
        let now = Instant::now();
        let mut pool = Pool::new(2, now);
        for place in [0, 1] {
            assert_eq!(pool.take_due(now), Some(place));
            pool.authorize(place);
        }
        assert_eq!(pool.next_due(), None);
        pool.grow(3, now);
        assert_eq!(take_all(&mut pool, now), [2, 3, 4]);
        [2, 3].into_iter().for_each(|place| pool.authorize(place));
        assert_eq!((pool.size(), pool.surplus(0), pool.surplus(1), pool.surplus(3)), (5, 2, 1, 0));
        pool.fail(4, now);
        pool.renew(0, now);
        pool.renew(2, now);
        assert_eq!((pool.size(), pool.authorized(), pool.next_due()), (2, 2, None), "two are left, and two are kept");
        pool.renew(1, now);
        pool.renew(3, now);
        assert_eq!(take_all(&mut pool, now), [1], "one tries the water");
        pool.grow(2, now);
        pool.keep(6, now);
        assert_eq!(pool.size(), 6);
        pool.grow(LINES * 2, now);
        assert_eq!(pool.size(), LINES);
    }

    #[test]
    fn a_crowd_comes_in_groups() {
        let now = Instant::now();
        let mut pool = Pool::new(UNDERWAY * 2, now);
        pool.take_due(now);
        pool.authorize(0);
        let group = take_all(&mut pool, now);
        assert_eq!(group.len(), UNDERWAY);
        pool.authorize(group[0]);
        assert_eq!(take_all(&mut pool, now).len(), 1);
    }

    #[test]
    fn only_what_proved_its_worth_is_replaced_at_once() {
        let now = Instant::now();
        let mut pool = Pool::new(2, now);
        pool.take_due(now);
        pool.authorize(0);
        assert_eq!(take_all(&mut pool, now), [1]);
        pool.authorize(1);
        assert_eq!(pool.authorized(), 2);
        assert!(pool.fail(1, now) > now + Duration::from_millis(50));
        pool.renew(0, now);
        assert_eq!((pool.authorized(), pool.next_due()), (0, Some(now)));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_never_leave_their_range() {
        for random in [0, 511, 1023, u64::MAX] {
            let pauses: Vec<_> = (1..=40).map(|failures| pause(failures, random)).collect();
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
        let now = Instant::now();
        let pauses: Vec<_> = (0..20).map(|_| Pool::new(1, now).fail(0, now) - now).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "twenty times the same pause");
        let mut pool = Pool::new(1, now);
        for _ in 0..10 {
            pool.fail(0, now);
        }
        assert!(pool.fail(0, now) - now > RETRY_SHORTEST * 2);
        pool.renew(0, now);
        assert!(pool.fail(0, now) - now <= RETRY_SHORTEST * 2);
    }
}
