//! Saying something once, not a thousand times a second.

use crate::limits::REFUSED_ADDRESSES;
use crate::network::Network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// At most one word in this time about the same thing.
const PAUSE: Duration = Duration::from_secs(10);
/// At most one word in this time about the same address.
const ADDRESS_PAUSE: Duration = Duration::from_secs(1);

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

/// The same for each of many addresses (IPv6: networks), at most [`REFUSED_ADDRESSES`] at a time.
#[derive(Default)]
pub(crate) struct AddressThrottle {
    addresses: HashMap<Network, Throttle>,
}

impl AddressThrottle {
    /// As [`Throttle::may_say`], about `ip`.
    pub(crate) fn may_say(&mut self, ip: IpAddr, now: Instant) -> Option<u64> {
        let network = Network::of(ip);
        if !self.addresses.contains_key(&network) && self.addresses.len() >= REFUSED_ADDRESSES {
            let is_recent = |throttle: &Throttle| throttle.last.is_some_and(|last| now < last + ADDRESS_PAUSE);
            self.addresses.retain(|_, throttle| is_recent(throttle));
            // A crowd of addresses: more lines than are worth having.
            if self.addresses.len() >= REFUSED_ADDRESSES {
                return None;
            }
        }
        self.addresses.entry(network).or_default().may_say_after(ADDRESS_PAUSE, now)
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

    #[test]
    fn a_stubborn_address_has_one_line_a_second_and_a_crowd_has_a_bounded_number() {
        let (mut throttle, start) = (AddressThrottle::default(), Instant::now());
        let ip = IpAddr::from([10, 1, 2, 3]);
        assert_eq!(throttle.may_say(ip, start), Some(0));
        assert!((0..1000).all(|_| throttle.may_say(ip, start).is_none()));
        let later = start + ADDRESS_PAUSE;
        assert_eq!(throttle.may_say(ip, later), Some(1000));
        let crowd = (0..10_000).map(|n| IpAddr::from([10, 0, (n / 256) as u8, n as u8]));
        let lines = crowd.filter(|ip| throttle.may_say(*ip, later).is_some()).count();
        assert_eq!(lines, REFUSED_ADDRESSES - 1);
        assert_eq!(throttle.addresses.len(), REFUSED_ADDRESSES);
        assert_eq!(throttle.may_say(IpAddr::from([192, 0, 2, 1]), later + ADDRESS_PAUSE), Some(0));
    }
}
