//! Introductions over the API: two callers with the same direct entry learn of each other.
//!
//! The first one waits, the second is told what the first said of itself. Entries live in the
//! registry; here is only who waits, and not for ever.

use crate::fairness::{Candidate, first_to_go};
use crate::limits::{DIRECT_CALLERS, DIRECT_WAIT};
use crate::network::Network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// What a caller of `/api/v2/direct` says of itself, and where it called from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub ip: String,
    pub remote_ip: IpAddr,
    pub port: u16,
    pub certificate: String,
}

impl Caller {
    /// Whether both are one peer. Its port may be another one each time.
    fn is(&self, other: &Self) -> bool {
        (&self.certificate, self.remote_ip, &self.ip) == (&other.certificate, other.remote_ip, &other.ip)
    }
}

/// The first callers, by the id of their entry.
#[derive(Default)]
pub(super) struct Callers {
    waiting: HashMap<String, (Caller, Instant)>,
}

impl Callers {
    /// The one who waits at entry `id`, and no longer does; if there is none, `caller` waits from now on. Who calls
    /// again takes its own place: nobody is told of itself.
    pub fn meet(&mut self, id: &str, caller: Caller, now: Instant) -> Option<Caller> {
        self.waiting.retain(|_, (_, since)| now < *since + DIRECT_WAIT);
        let first = self.waiting.remove(id).map(|(first, _)| first);
        if let Some(first) = first.filter(|first| !first.is(&caller)) {
            return Some(first);
        }
        if self.waiting.len() >= DIRECT_CALLERS {
            let candidate = |(id, (caller, since)): (&'_ String, &(Caller, Instant))| {
                (Network::of(caller.remote_ip), Candidate { rank: 0, age: *since, key: id.clone() })
            };
            let first = first_to_go(self.waiting.iter().map(candidate).collect(), 1);
            first.first().and_then(|id| self.waiting.remove(id));
        }
        self.waiting.insert(id.to_owned(), (caller, now));
        None
    }

    /// The entry is gone.
    pub fn forget(&mut self, id: &str) {
        self.waiting.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn caller(port: u16) -> Caller {
        let certificate = format!("of the peer at {port}");
        Caller { ip: "10.0.0.1".into(), remote_ip: [192, 0, 2, 1].into(), port, certificate }
    }

    #[test]
    fn callers_meet_in_pairs() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        assert_eq!(callers.meet("a", caller(1), now), None);
        assert_eq!(callers.meet("b", caller(9), now), None);
        assert_eq!(callers.meet("a", caller(2), now), Some(caller(1)));
        assert_eq!(callers.meet("a", caller(3), now), None);
        callers.forget("a");
        assert_eq!(callers.meet("a", caller(4), now), None);
    }

    #[test]
    fn who_calls_again_is_not_told_of_itself() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        let again = Caller { port: 5, ..caller(1) };
        assert_eq!(callers.meet("a", caller(1), now), None);
        assert_eq!(callers.meet("a", again.clone(), now), None);
        assert_eq!(callers.meet("a", caller(2), now), Some(again), "what it said last counts");
        for other in [
            Caller { ip: "10.0.0.2".into(), ..caller(1) },
            Caller { remote_ip: [192, 0, 2, 2].into(), ..caller(1) },
            Caller { certificate: "another".into(), ..caller(1) },
        ] {
            assert_eq!(callers.meet("a", caller(1), now), None);
            assert_eq!(callers.meet("a", other, now), Some(caller(1)));
        }
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        assert_eq!(callers.meet("a", caller(1), now), None);
        assert_eq!(callers.meet("a", caller(2), now + DIRECT_WAIT), None);
    }

    #[test]
    fn a_crowd_pushes_out_the_oldest() {
        let (mut callers, start) = (Callers::default(), Instant::now());
        for n in 0..=DIRECT_CALLERS {
            callers.meet(&n.to_string(), caller(n as u16), start + Duration::from_millis(n as u64));
        }
        assert_eq!(callers.waiting.len(), DIRECT_CALLERS);
        assert!(!callers.waiting.contains_key("0"));
    }

    #[test]
    fn a_crowd_does_not_push_out_who_calls_from_elsewhere() {
        let (mut callers, start) = (Callers::default(), Instant::now());
        callers.meet("elsewhere", Caller { remote_ip: [192, 0, 2, 9].into(), ..caller(0) }, start);
        for n in 0..2 * DIRECT_CALLERS {
            callers.meet(&n.to_string(), caller(n as u16), start + Duration::from_millis(n as u64));
        }
        assert!(callers.waiting.len() == DIRECT_CALLERS && callers.waiting.contains_key("elsewhere"));
    }
}
