//! The places of the pool: which connections are there, which are to be tried, and when. No I/O.
//!
//! While none is authorized only the first place is tried: a Connector that is down, or that refuses the passcode,
//! sees one attempt at a time and not as many as there are places.

use super::backoff::Backoff;
use crate::limits::UNDERWAY;
use std::time::Instant;

/// Names a place of the pool.
pub(super) type Place = usize;

/// All places of an agent.
pub(super) struct Pool {
    places: Vec<Slot>,
    authorized: usize,
    underway: usize,
}

struct Slot {
    stage: Stage,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Empty, and not to be tried before this.
    Resting(Instant),
    /// A connection is being made.
    Underway,
    /// A connection is there.
    Authorized,
}

impl Pool {
    /// `count` places, all of which may be tried at once.
    pub(super) fn new(count: usize, now: Instant) -> Self {
        let places = (0..count).map(|_| Slot { stage: Stage::Resting(now), backoff: Backoff::default() });
        Self { places: places.collect(), authorized: 0, underway: 0 }
    }

    /// How many connections are authorized.
    pub(super) fn authorized(&self) -> usize {
        self.authorized
    }

    /// A place that is to be tried now, if there is one. It is underway from then on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Place> {
        if self.authorized > 0 && self.underway >= UNDERWAY {
            return None;
        }
        let due = |slot: &Slot| matches!(slot.stage, Stage::Resting(until) if until <= now);
        let place = self.candidates().iter().position(due)?;
        self.set(place, Stage::Underway);
        Some(place)
    }

    /// When the next place is due; `None`: no place rests, or none may be tried.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let rests = self.candidates().iter().filter_map(|slot| match slot.stage {
            Stage::Resting(until) => Some(until),
            _ => None,
        });
        rests.min()
    }

    fn candidates(&self) -> &[Slot] {
        let count = if self.authorized == 0 { 1 } else { self.places.len() };
        &self.places[..count.min(self.places.len())]
    }

    /// The Connector has taken the passcode.
    pub(super) fn authorize(&mut self, place: Place) {
        self.set(place, Stage::Authorized);
    }

    /// The connection failed, or was lost before it proved its worth. Returns when the place is tried again.
    pub(super) fn fail(&mut self, place: Place, now: Instant) -> Instant {
        let until = now + self.places[place].backoff.fail();
        self.set(place, Stage::Resting(until));
        until
    }

    /// It is tried again at once in another way.
    pub(super) fn retry(&mut self, place: Place, now: Instant) {
        self.set(place, Stage::Resting(now));
    }

    /// The connection has served its purpose: its place is to be filled again at once.
    pub(super) fn renew(&mut self, place: Place, now: Instant) -> Instant {
        self.places[place].backoff.reset();
        self.set(place, Stage::Resting(now));
        now
    }

    fn set(&mut self, place: Place, stage: Stage) {
        let before = std::mem::replace(&mut self.places[place].stage, stage);
        for (stage, change) in [(before, -1), (stage, 1)] {
            match stage {
                Stage::Resting(_) => {}
                Stage::Underway => self.underway = self.underway.saturating_add_signed(change),
                Stage::Authorized => self.authorized = self.authorized.saturating_add_signed(change),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn take_all(pool: &mut Pool, now: Instant) -> Vec<Place> {
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
}
