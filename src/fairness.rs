//! Who has to go when a limit is reached: some of those whose network has most (docs/limits.md, "Fairness").
//!
//! Pure, for places that are few or searched seldom. Queues of connections count as they go: see `relay::fair_queue`.

use crate::network::Network;
use std::collections::HashMap;

/// What may have to go for something new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate<A, K> {
    /// The lower, the sooner it goes.
    pub(crate) rank: u8,
    /// Of the same rank the lowest goes first.
    pub(crate) age: A,
    pub(crate) key: K,
}

/// The first `count` to go: the networks with most candidates are brought down to the same number.
pub(crate) fn first_to_go<A: Ord, K: Ord>(mut candidates: Vec<(Network, Candidate<A, K>)>, count: usize) -> Vec<K> {
    let mut sizes: HashMap<Network, usize> = HashMap::new();
    for (network, _) in &candidates {
        *sizes.entry(*network).or_default() += 1;
    }
    let surplus = |level: usize| sizes.values().map(|size| size.saturating_sub(level)).sum::<usize>();
    let mut level = sizes.values().copied().max().unwrap_or_default();
    while level > 0 && surplus(level) < count {
        level -= 1;
    }
    candidates.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    let above = candidates.into_iter().filter(|(network, _)| {
        let size = sizes.entry(*network).or_default();
        let goes = *size > level;
        *size -= usize::from(goes);
        goes
    });
    above.map(|(_, candidate)| candidate.key).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EVICTED_AT_ONCE;
    use std::time::{Duration, Instant};

    /// Candidates in the order of their age, of the network and rank given; their keys are their numbers.
    fn gone(candidates: &[(u32, u8)], count: usize) -> Vec<usize> {
        let candidate =
            |(key, &(network, rank)): (usize, &(u32, u8))| (Network::V4(network), Candidate { rank, age: key, key });
        first_to_go(candidates.iter().enumerate().map(candidate).collect(), count)
    }

    #[test]
    fn the_network_with_most_loses_the_lowest_rank_and_of_that_the_oldest() {
        let candidates = [(1, 0), (2, 2), (2, 1), (2, 1), (3, 0), (3, 0)];
        assert_eq!(gone(&candidates, 1), [2]);
        assert!(gone(&[], 1).is_empty());
    }

    #[test]
    fn several_come_from_where_most_are() {
        let crowd: Vec<_> = (0..100).map(|i| (if i % 10 == 0 { i } else { 1000 }, 2)).collect();
        let gone = gone(&crowd, 50);
        assert_eq!(gone.len(), 50);
        assert!(gone.iter().all(|key| key % 10 != 0), "{gone:?}");
    }

    #[test]
    fn two_crowds_lose_equally_and_single_connections_nothing() {
        let crowd: Vec<_> = (0..41).map(|i| (if i == 0 { 0 } else { 1 + i % 2 }, 2)).collect();
        assert_eq!(gone(&crowd, 10), (1..11).collect::<Vec<_>>());
    }

    #[test]
    fn an_older_crowd_loses_no_more_than_a_younger_one_of_the_same_size() {
        assert_eq!(gone(&[1, 1, 1, 2, 2, 2].map(|network| (network, 2)), 2), [0, 3]);
    }

    #[test]
    fn of_many_networks_with_one_each_the_oldest_go() {
        let crowd: Vec<_> = (0..10_000).map(|i| (i, 2)).collect();
        assert_eq!(gone(&crowd, 3), [0, 1, 2]);
    }

    #[test]
    fn a_search_among_ten_thousand_is_cheap_for_each_that_goes() {
        for networks in [1, 100, 10_000] {
            let crowd: Vec<_> = (0..10_000).map(|i| (i % networks, 2)).collect();
            let start = Instant::now();
            let gone = gone(&crowd, 10_000 / EVICTED_AT_ONCE);
            let each = start.elapsed() / gone.len() as u32;
            println!("{networks} networks: {each:?} each");
            assert!(each < Duration::from_millis(10), "{each:?}"); // a debug build on a busy machine
        }
    }
}
