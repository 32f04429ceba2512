//! The brake on failed passcodes at one agent port (docs/protocol.md, section 4).
//!
//! Agents with a stale passcode redial at once and for ever. After a few failures from an address, its next
//! connections are taken one a second; the others' are not affected. The table is bounded: when it is full,
//! the address that failed longest ago is forgotten.

use crate::limits::{BRAKE_ADDRESSES, BRAKE_FAILURES, BRAKE_PAUSE, BRAKE_WINDOW, GREETING};
use crate::throttle::Throttle;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// What to do with a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// Let it wait untouched until then.
    At(Instant),
    /// Too many wait already: close it.
    Never,
}

/// Failures at one port, by address.
#[derive(Default)]
pub(super) struct Brake {
    addresses: HashMap<IpAddr, Record>,
}

struct Record {
    /// The latest failures, oldest first; full = braked if the oldest is recent.
    failures: [Option<Instant>; BRAKE_FAILURES],
    /// When the next connection may be taken.
    next: Instant,
    log: Throttle,
}

impl Record {
    fn latest(&self) -> Option<Instant> {
        self.failures[BRAKE_FAILURES - 1]
    }
}

impl Brake {
    /// A connection from `address` has arrived.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> Admission {
        let Some(record) = self.addresses.get_mut(&address) else { return Admission::Now };
        if record.failures[0].is_none_or(|oldest| now >= oldest + BRAKE_WINDOW) {
            return Admission::Now;
        }
        let turn = record.next.max(now);
        if turn >= now + GREETING {
            return Admission::Never;
        }
        record.next = turn + BRAKE_PAUSE;
        if turn == now { Admission::Now } else { Admission::At(turn) }
    }

    /// A wrong passcode came from `address`. `Some(n)`: worth a line in the log, n others went unsaid.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        if self.addresses.len() >= BRAKE_ADDRESSES && !self.addresses.contains_key(&address) {
            self.forget_oldest();
        }
        let fresh = || Record { failures: [None; BRAKE_FAILURES], next: now, log: Throttle::default() };
        let record = self.addresses.entry(address).or_insert_with(fresh);
        record.failures.rotate_left(1);
        record.failures[BRAKE_FAILURES - 1] = Some(now);
        record.log.may_say(now)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.addresses.iter().min_by_key(|(_, record)| record.latest()).map(|(address, _)| *address);
        if let Some(address) = oldest {
            self.addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn one_a_second_after_five_failures_and_free_again_later() {
        let (mut brake, start) = (Brake::default(), Instant::now());
        for _ in 0..BRAKE_FAILURES {
            assert_eq!(brake.admit(HERE, start), Admission::Now);
            brake.failed(HERE, start);
        }
        assert_eq!(brake.admit(HERE, start), Admission::Now);
        assert_eq!(brake.admit(HERE, start), Admission::At(start + BRAKE_PAUSE));
        assert_eq!(brake.admit(HERE, start), Admission::At(start + BRAKE_PAUSE * 2));
        assert_eq!(brake.admit("::1".parse().unwrap(), start), Admission::Now, "others are not affected");
        assert_eq!(brake.admit(HERE, start + BRAKE_WINDOW), Admission::Now);
    }

    #[test]
    fn the_queue_of_one_address_is_bounded() {
        let (mut brake, start) = (Brake::default(), Instant::now());
        for _ in 0..BRAKE_FAILURES {
            brake.failed(HERE, start);
        }
        let taken = (0..100).filter(|_| brake.admit(HERE, start) != Admission::Never).count();
        assert_eq!(Duration::from_secs(taken as u64), GREETING);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut brake, start) = (Brake::default(), Instant::now());
        for i in 0..2 * BRAKE_ADDRESSES as u32 {
            brake.failed(IpAddr::V4(i.into()), start + Duration::from_millis(i.into()));
        }
        assert_eq!(brake.addresses.len(), BRAKE_ADDRESSES);
    }
}
