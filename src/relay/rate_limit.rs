//! How fast connections of one network may fail at one port (docs/protocol.md, "Failures").
//!
//! Pure: knows no socket and no clock. Three things are limited, each by a leaky bucket:
//!
//! | what | so that |
//! |---|---|
//! | rejections are answered late, the later the more there were | a program with a stale passcode is slowed by its own waiting |
//! | *different* wrong passcodes | nobody tries many; a stale one that comes again and again is no new guess |
//! | connections that fail without waiting for the answer | handshakes that lead to nothing cost a bounded part of the processor |
//!
//! Who shows the right passcode is answered at once, whatever others of the same network do, as long as they stay
//! below the last two limits. Those are set so that only an attack reaches them.
//!
//! What is remembered is bounded: [`records`].

mod records;

use crate::bucket::Bucket;
use crate::limits::{
    ABANDONED, ABANDONED_INTERVAL, ABANDONED_WAIT, GUESS_INTERVAL, GUESSES, REJECTION_LONGEST, REJECTION_STEP,
};
use crate::network::Network;
use records::Records;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where failures come from, and where they happen: what goes on at one port is nothing to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    network: Network,
    port: u16,
}

impl Source {
    pub(super) fn new(address: IpAddr, port: u16) -> Self {
        Self { network: Network::of(address), port }
    }
}

/// When something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    Now,
    /// In turn, behind others of the same source.
    At(Instant),
    /// Not in time.
    Never,
}

/// The failures of all sources.
#[derive(Default)]
pub(super) struct RateLimit {
    records: Records,
    /// Wrong passcodes are remembered as keyed hashes: they may be typing errors of right ones.
    fingerprints: RandomState,
}

/// Different wrong passcodes that may be tried one right after the other.
const GUESSES_AT_ONCE: Duration = GUESS_INTERVAL.saturating_mul(GUESSES as u32);
/// The same of connections that are abandoned.
const ABANDONED_AT_ONCE: Duration = ABANDONED_INTERVAL.saturating_mul(ABANDONED);

impl RateLimit {
    /// A connection of `source` has come: when it may begin its handshake.
    pub(super) fn admit(&mut self, source: Source, now: Instant) -> Permit {
        let Some(record) = self.records.find(source) else { return Permit::Now };
        let wait = record.abandoned.level(now).saturating_sub(ABANDONED_AT_ONCE);
        if wait.is_zero() {
            return Permit::Now;
        }
        if wait >= ABANDONED_WAIT {
            return Permit::Never;
        }
        record.abandoned.fill(ABANDONED_INTERVAL, Duration::MAX, now);
        Permit::At(now + wait)
    }

    /// A connection of `source` has failed and did not wait for the answer, or never asked.
    pub(super) fn abandoned(&mut self, source: Source, now: Instant) {
        let record = self.records.of(source, now);
        record.abandoned.fill(ABANDONED_INTERVAL, ABANDONED_AT_ONCE + ABANDONED_WAIT, now);
        record.rejections.fill(REJECTION_STEP, REJECTION_LONGEST, now);
    }

    /// `source` shows a passcode: when it may be looked at, if that must be before `until`.
    pub(super) fn guess(&mut self, source: Source, passcode: &[u8], until: Instant, now: Instant) -> Permit {
        let fingerprint = self.fingerprints.hash_one(passcode);
        let Some(record) = self.records.find(source) else { return Permit::Now };
        let level = record.guesses.level(now) + GUESS_INTERVAL;
        if record.knows(fingerprint) || level <= GUESSES_AT_ONCE {
            return Permit::Now;
        }
        let turn = now + (level - GUESSES_AT_ONCE);
        if turn >= until {
            return Permit::Never;
        }
        record.guesses.fill(GUESS_INTERVAL, Duration::MAX, now);
        Permit::At(turn)
    }

    /// The passcode was wrong. `waited`: it has had a turn of its own ([`Permit::At`]).
    pub(super) fn wrong(&mut self, source: Source, passcode: &[u8], waited: bool, now: Instant) -> Duration {
        let fingerprint = self.fingerprints.hash_one(passcode);
        let record = self.records.of(source, now);
        if !record.knows(fingerprint) {
            record.learn(fingerprint);
            if !waited {
                record.guesses.fill(GUESS_INTERVAL, GUESSES_AT_ONCE, now);
            }
        }
        self.reject(source, now)
    }

    /// A connection of `source` is turned away: it is closed after so long.
    pub(super) fn reject(&mut self, source: Source, now: Instant) -> Duration {
        self.records.of(source, now).rejections.fill(REJECTION_STEP, REJECTION_LONGEST, now)
    }

    /// Forgets what is over. To be called every now and then.
    pub(super) fn forget(&mut self, now: Instant) {
        self.records.forget(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RATE_LIMITED_PORTS;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(address: &str) -> Source {
        Source::new(address.parse().unwrap(), 6000)
    }

    fn here() -> Source {
        source("192.0.2.1")
    }

    /// How many of the passcodes that `passcode` makes are looked at, tried as fast as possible for `seconds`.
    fn looked_at(seconds: u64, passcode: impl Fn(u64) -> String) -> u64 {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        let mut count = 0;
        for tenth in 0..seconds * 10 {
            let now = start + SECOND / 10 * tenth as u32;
            for i in 0..100 {
                let passcode = passcode(tenth * 100 + i);
                // A client that closes and redials is gone when its turn comes, and the turn is used up all the same.
                let permit = limit.guess(here(), passcode.as_bytes(), now + SECOND * 10, now);
                if permit != Permit::Never {
                    count += 1;
                    limit.wrong(here(), passcode.as_bytes(), permit != Permit::Now, now);
                }
            }
        }
        count
    }

    #[test]
    fn rejections_come_the_later_the_more_there_were() {
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        let delays: Vec<u64> = (0..12).map(|_| limit.wrong(here(), b"x", false, now).as_secs()).collect();
        assert_eq!(delays, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
        assert_eq!(limit.wrong(here(), b"x", false, now + SECOND * 5), SECOND * 6);
        assert_eq!(limit.wrong(here(), b"x", false, now + SECOND * 60), SECOND);
        assert_eq!(limit.wrong(source("192.0.2.2"), b"x", false, now), SECOND);
    }

    #[test]
    fn different_passcodes_are_looked_at_one_a_second_after_the_first_few() {
        let most = GUESSES as u64 + 60 + 11; // and those whose turn is still to come
        assert!((GUESSES as u64 + 60..most).contains(&looked_at(60, |i| i.to_string())));
    }

    #[test]
    fn a_stale_passcode_is_no_new_guess_however_often_it_comes() {
        assert_eq!(looked_at(60, |_| "stale".to_owned()), 60_000);
        assert_eq!(looked_at(60, |i| (i % GUESSES as u64).to_string()), 60_000);
    }

    #[test]
    fn a_crowd_with_stale_passcodes_does_not_make_others_wait() {
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        for _ in 0..1000 {
            limit.wrong(here(), b"stale", false, now);
        }
        assert_eq!(limit.guess(here(), b"right", now + SECOND, now), Permit::Now);
        assert_eq!(limit.admit(here(), now), Permit::Now);
    }

    #[test]
    fn who_guesses_waits_in_turn_and_nobody_else_does() {
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        for i in 0..GUESSES {
            limit.wrong(here(), &[i as u8], false, now);
        }
        let guess = |limit: &mut RateLimit| limit.guess(here(), b"new", now + SECOND * 2, now);
        assert_eq!([0; 3].map(|_| guess(&mut limit)), [Permit::At(now + SECOND), Permit::Never, Permit::Never]);
        assert_eq!(limit.guess(source("192.0.2.2"), b"new", now, now), Permit::Now);
        let elsewhere = Source { port: 6001, ..here() };
        assert_eq!(limit.guess(elsewhere, b"new", now, now), Permit::Now);
    }

    #[test]
    fn connections_that_lead_to_nothing_are_limited() {
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        for _ in 0..ABANDONED {
            assert_eq!(limit.admit(here(), now), Permit::Now);
            limit.abandoned(here(), now);
        }
        assert_eq!(limit.admit(here(), now), Permit::Now);
        limit.abandoned(here(), now);
        assert_eq!(limit.admit(here(), now), Permit::At(now + ABANDONED_INTERVAL));
        let permits = std::iter::from_fn(|| Some(limit.admit(here(), now)));
        let in_turn = permits.take(1000).take_while(|&permit| permit != Permit::Never).count();
        assert!(in_turn as u128 <= ABANDONED_WAIT.as_millis() / ABANDONED_INTERVAL.as_millis(), "{in_turn}");
        assert_eq!(limit.admit(source("192.0.2.2"), now), Permit::Now);
        assert_eq!(limit.admit(here(), now + ABANDONED_WAIT), Permit::Now);
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        for i in 0..20 {
            limit.wrong(source(&format!("2001:db8::{i}")), b"x", false, now);
        }
        assert_eq!(limit.wrong(source("2001:db8::ffff"), b"x", false, now), REJECTION_LONGEST);
        assert_eq!(limit.wrong(source("2001:db8:0:1::1"), b"x", false, now), SECOND);
    }

    /// However many other ports it touches, and however often it comes back.
    #[test]
    fn one_address_cannot_renew_its_guesses() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        let mut guess = |port, number: u64, now| {
            let (source, passcode) = (Source { port, ..here() }, number.to_string());
            let permit = limit.guess(source, passcode.as_bytes(), now, now);
            if permit == Permit::Now {
                limit.wrong(source, passcode.as_bytes(), false, now);
            }
            limit.abandoned(source, now);
            limit.forget(now);
            permit == Permit::Now
        };
        let (mut at_one_port, mut at_all) = (0, 0);
        const ROUNDS: u64 = 10;
        for round in 0..ROUNDS {
            let now = start + SECOND * round as u32;
            for number in 0..2 * GUESSES as u64 {
                at_one_port += u64::from(guess(6000, round << 32 | number, now));
            }
            for port in 7000..9000 {
                at_all += u64::from(guess(port, round << 32 | u64::from(port), now));
            }
        }
        assert!(at_one_port <= GUESSES as u64 + ROUNDS, "{at_one_port}");
        let most = (RATE_LIMITED_PORTS as u64 + 1) * (GUESSES as u64 + ROUNDS);
        assert!(at_all <= most, "{at_all}");
    }
}
