//! A limited number of places, and who leaves when all are taken and one more comes.
//!
//! The network with most places loses the oldest of them. So who connects again and again pushes out its own
//! connections, however fast, and who comes from elsewhere stays.
//!
//! How many places each network has is counted as they come and go; finding who leaves looks at no more than the
//! queue's places, and allocates nothing.

use super::census::Census;
use super::queue::{Queue, Ticket};
use crate::net::reactor::Key;
use crate::network::Network;
use std::net::IpAddr;

/// A [`Queue`] that knows how many of its places each network has.
#[derive(Default)]
pub(super) struct FairQueue {
    queue: Queue<(Key, Network)>,
    places: Census,
}

impl FairQueue {
    pub(super) fn join(&mut self, key: Key, address: IpAddr) -> Ticket {
        let network = Network::of(address);
        self.places.add(network);
        self.queue.join((key, network))
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some((_, network)) = self.queue.leave(ticket) else { return };
        self.places.remove(network);
    }

    /// Who must leave before one more may join, if there are `most` places.
    pub(super) fn surplus(&self, most: usize) -> Option<Key> {
        self.surplus_by(most, |_| 1)
    }

    /// The same where so many places of a network count as one.
    pub(super) fn surplus_by(&self, most: usize, as_one: impl Fn(Network) -> usize) -> Option<Key> {
        if self.len() < most {
            return None;
        }
        let weight = |network, places: usize| places.div_ceil(as_one(network));
        let largest = self.places.iter().map(|(network, places)| weight(network, places)).max()?;
        let has_most = |network| weight(network, self.places.of(network)) == largest;
        self.queue.iter().find(|&(_, network)| has_most(network)).map(|(key, _)| key)
    }

    /// Who has been here longest.
    pub(super) fn first(&self) -> Option<Key> {
        self.queue.first().map(|(key, _)| key)
    }

    /// Those who have been here longest come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Key> {
        self.queue.iter().map(|(key, _)| key)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(members: &[(Key, &str)]) -> (FairQueue, Vec<Ticket>) {
        let mut queue = FairQueue::default();
        let tickets = members.iter().map(|&(key, address)| queue.join(key, address.parse().unwrap())).collect();
        (queue, tickets)
    }

    fn first(members: &[(Key, &str)]) -> Option<Key> {
        queue(members).0.surplus(members.len())
    }

    #[test]
    fn of_one_address_the_oldest_leaves() {
        assert_eq!(first(&[(3, "192.0.2.1"), (1, "192.0.2.1"), (2, "192.0.2.1")]), Some(3));
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn nobody_leaves_while_there_is_room() {
        assert_eq!(queue(&[(3, "192.0.2.1"), (1, "192.0.2.1")]).0.surplus(3), None);
    }

    #[test]
    fn the_address_with_most_pushes_out_its_own() {
        let members = [(1, "192.0.2.9"), (2, "192.0.2.1"), (3, "192.0.2.1"), (4, "192.0.2.2")];
        assert_eq!(first(&members), Some(2));
    }

    #[test]
    fn of_equals_the_oldest_leaves() {
        assert_eq!(first(&[(5, "192.0.2.2"), (6, "192.0.2.1"), (7, "192.0.2.1"), (8, "192.0.2.2")]), Some(5));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(first(&[(1, "2001:db8::1"), (2, "2001:db8:1::1"), (3, "2001:db8:1::2")]), Some(2));
    }

    #[test]
    fn some_networks_may_have_more() {
        let members: Vec<_> = (0..6).map(|key| (key, if key < 4 { "192.0.2.1" } else { "192.0.2.2" })).collect();
        let (queue, _tickets) = queue(&members);
        let first = Network::of("192.0.2.1".parse().unwrap());
        let surplus = |as_one| queue.surplus_by(6, |network| if network == first { as_one } else { 1 });
        assert_eq!([1, 2, 3, 4].map(surplus), [Some(0), Some(0), Some(0), Some(4)]);
    }

    #[test]
    fn who_has_left_counts_no_more() {
        let (mut queue, mut tickets) = queue(&[(1, "192.0.2.1"), (2, "192.0.2.1"), (3, "192.0.2.2"), (4, "192.0.2.2")]);
        queue.leave(tickets.remove(0));
        assert_eq!(queue.surplus(3), Some(3));
        tickets.into_iter().for_each(|ticket| queue.leave(ticket));
        assert!(queue.is_empty() && queue.places.is_empty());
    }
}
