//! What is remembered of failures: a bounded table that nobody can flush.
//!
//! A network has records of its own for a number of ports; what it does at further ports goes into one that they
//! share. So it cannot push out what is held against it by touching other ports. When all records are in use those
//! go that are held against somebody for the shortest time, however old they are: to push out one takes as many others
//! that weigh more.

use super::{Bucket, GUESSES, Source};
use crate::limits::{RATE_LIMITED, RATE_LIMITED_PORTS};
use crate::relay::census::Census;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// With all records in use, one in so many of them goes at once, so that the search for them costs little.
const EVICTED_AT_ONCE: usize = 16;
/// No listener has this port: it stands for all ports that have no record of their own.
const OTHER_PORTS: u16 = 0;

/// What is held against one source.
#[derive(Default)]
pub(super) struct Record {
    pub(super) rejections: Bucket,
    pub(super) guesses: Bucket,
    pub(super) abandoned: Bucket,
    /// Fingerprints of wrong passcodes that were shown, the latest last.
    known: Vec<u64>,
}

impl Record {
    pub(super) fn knows(&self, fingerprint: u64) -> bool {
        self.known.contains(&fingerprint)
    }

    /// Remembers one more, and forgets the oldest for it.
    pub(super) fn learn(&mut self, fingerprint: u64) {
        if self.known.len() == GUESSES {
            self.known.remove(0);
        }
        self.known.push(fingerprint);
    }

    /// How much there is to remember: nothing once all buckets have run empty.
    fn weight(&self, now: Instant) -> Duration {
        [&self.rejections, &self.guesses, &self.abandoned].map(|bucket| bucket.level(now)).iter().sum()
    }
}

#[derive(Default)]
pub(super) struct Records {
    records: HashMap<Source, Record>,
    /// How many of them each network has.
    ports: Census,
}

impl Records {
    /// What is held against `source`, if anything.
    pub(super) fn find(&mut self, source: Source) -> Option<&mut Record> {
        let source = self.kept_as(source);
        self.records.get_mut(&source)
    }

    /// The same, to add to it.
    pub(super) fn of(&mut self, source: Source, now: Instant) -> &mut Record {
        let source = self.kept_as(source);
        if !self.records.contains_key(&source) {
            if self.records.len() >= RATE_LIMITED {
                self.evict(now);
            }
            self.ports.add(source.network);
        }
        self.records.entry(source).or_default()
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Instant) {
        let Self { records, ports } = self;
        records.retain(|source, record| {
            let stays = !record.weight(now).is_zero();
            if !stays {
                ports.remove(source.network);
            }
            stays
        });
    }

    /// A network has only so many records of its own.
    fn kept_as(&self, source: Source) -> Source {
        let has_all = self.ports.of(source.network) >= RATE_LIMITED_PORTS;
        if has_all && !self.records.contains_key(&source) { Source { port: OTHER_PORTS, ..source } } else { source }
    }

    fn evict(&mut self, now: Instant) {
        let mut weights: Vec<_> = self.records.iter().map(|(&source, record)| (record.weight(now), source)).collect();
        weights.sort_unstable_by_key(|(weight, _)| *weight);
        for (_, source) in weights.into_iter().take(RATE_LIMITED / EVICTED_AT_ONCE) {
            self.records.remove(&source);
            self.ports.remove(source.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    fn source(network: u32, port: u16) -> Source {
        Source { network: Network::V4(network), port }
    }

    fn weigh(records: &mut Records, source: Source, seconds: u64, now: Instant) {
        records.of(source, now).guesses.fill(Duration::from_secs(seconds), Duration::MAX, now);
    }

    #[test]
    fn they_are_bounded_and_the_heaviest_stay() {
        let (mut records, now) = (Records::default(), Instant::now());
        weigh(&mut records, source(0, 1), 60, now);
        for network in 1..10 * RATE_LIMITED as u32 {
            weigh(&mut records, source(network, 1), 1, now);
            assert!(records.find(source(network, 1)).is_some(), "the latest is there");
        }
        assert!(records.records.len() <= RATE_LIMITED && records.ports.iter().count() <= RATE_LIMITED);
        assert!(records.find(source(0, 1)).is_some());
    }

    #[test]
    fn a_network_has_a_bounded_number_and_flushes_nothing() {
        let (mut records, now) = (Records::default(), Instant::now());
        weigh(&mut records, source(1, 1), 1, now);
        weigh(&mut records, source(2, 1), 1, now);
        for port in 2..u16::MAX {
            weigh(&mut records, source(2, port), 60, now);
        }
        assert_eq!(records.records.len(), 1 + RATE_LIMITED_PORTS + 1);
        for network in [1, 2] {
            let weight = records.find(source(network, 1)).map(|record| record.weight(now));
            assert_eq!(weight, Some(Duration::from_secs(1)));
        }
    }

    #[test]
    fn what_is_over_is_forgotten_and_its_place_is_free() {
        let (mut records, now) = (Records::default(), Instant::now());
        for port in 1..1000 {
            weigh(&mut records, source(1, port), u64::from(port), now);
        }
        records.forget(now + Duration::from_secs(10));
        assert!(records.find(source(1, 11)).is_some() && !records.records.contains_key(&source(1, 10)));
        records.forget(now + Duration::from_secs(1_000_000));
        assert!(records.records.is_empty() && records.ports.is_empty());
    }
}
