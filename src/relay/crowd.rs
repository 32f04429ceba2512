//! Who goes when a crowd is complete and one more comes.
//!
//! The one that has been there longest of those that come from where most come from. So an address that connects
//! again and again pushes out its own, however fast, and who comes from elsewhere stays.

use super::queue::Queue;
use super::state::State;
use crate::net::reactor::{Key, Reactor};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The first to go from `queue` before one more may join, if it may hold `most`.
pub(super) fn surplus(queue: &Queue, most: usize, reactor: &Reactor<State>) -> Option<Key> {
    if queue.len() < most {
        return None;
    }
    first_to_go(queue.iter().filter_map(|key| Some((key, reactor.get(key)?.link.peer.ip()))))
}

/// The first to go of `crowd`, which comes in the order of who has been there longest.
pub(super) fn first_to_go(crowd: impl Iterator<Item = (Key, IpAddr)>) -> Option<Key> {
    let crowd: Vec<_> = crowd.map(|(key, address)| (key, neighbourhood(address))).collect();
    let mut sizes: HashMap<IpAddr, usize> = HashMap::new();
    for (_, place) in &crowd {
        *sizes.entry(*place).or_default() += 1;
    }
    let largest = sizes.values().copied().max()?;
    crowd.into_iter().find(|(_, place)| sizes[place] == largest).map(|(key, _)| key)
}

/// What one party has addresses of: with IPv6 a whole network of 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(crowd: &[(Key, &str)]) -> Option<Key> {
        first_to_go(crowd.iter().map(|&(key, address)| (key, address.parse().unwrap())))
    }

    #[test]
    fn of_one_address_the_oldest_goes() {
        assert_eq!(first(&[(3, "192.0.2.1"), (1, "192.0.2.1"), (2, "192.0.2.1")]), Some(3));
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn the_address_with_most_pushes_out_its_own() {
        let crowd = [(1, "192.0.2.9"), (2, "192.0.2.1"), (3, "192.0.2.1"), (4, "192.0.2.2")];
        assert_eq!(first(&crowd), Some(2));
    }

    #[test]
    fn of_equals_the_oldest_goes() {
        assert_eq!(first(&[(5, "192.0.2.2"), (6, "192.0.2.1"), (7, "192.0.2.1"), (8, "192.0.2.2")]), Some(5));
    }

    #[test]
    fn neighbours_of_one_network_count_as_one() {
        assert_eq!(first(&[(1, "2001:db8::1"), (2, "2001:db8:1::1"), (3, "2001:db8:1::2")]), Some(2));
    }
}
