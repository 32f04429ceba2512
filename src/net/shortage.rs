//! Who is ended when somebody waits for a relay buffer: all are in use, or all that its network may have.
//!
//! Only who holds a buffer without progress: takes less than a record of what is for it, or does not finish the
//! record that it has begun. The network address that holds most buffers loses one, and of its connections the one that
//! has been stuck longest, after [`STALLED`]; the others are as patient as with any reader ([`DELIVERY`]). So a crowd of
//! slow readers goes before one honest reader that pauses.

use super::reactor::{Key, Reactor};
use crate::limits::{DELIVERY, STALLED};
use crate::network::Network;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// A connection that holds a relay buffer.
struct Holder {
    key: Key,
    peer: SocketAddr,
    network: Network,
    stuck_since: Option<Instant>,
}

/// Those that must go now: at most as many as wait for a buffer.
pub fn to_end<S>(reactor: &Reactor<S>) -> Vec<(Key, SocketAddr)> {
    if reactor.starving() == 0 {
        return Vec::new();
    }
    let holders = reactor.iter().filter(|(_, socket)| socket.link.holds_buffer()).map(|(key, socket)| Holder {
        key,
        peer: socket.link.peer,
        network: socket.link.holds_for(),
        stuck_since: socket.link.stuck_since(),
    });
    choose(holders.collect(), reactor.starving(), reactor.now)
}

fn choose(holders: Vec<Holder>, most: usize, now: Instant) -> Vec<(Key, SocketAddr)> {
    let mut sizes: HashMap<Network, usize> = HashMap::new();
    for holder in &holders {
        *sizes.entry(holder.network).or_default() += 1;
    }
    let mut stuck: Vec<(Holder, Instant)> =
        holders.into_iter().filter_map(|h| Some((h.stuck_since?, h))).map(|(since, h)| (h, since)).collect();
    stuck.sort_by_key(|&(_, since)| since);
    let mut chosen = Vec::new();
    while chosen.len() < most {
        let largest = sizes.values().copied().max().unwrap_or(0);
        let size = |holder: &Holder| sizes.get(&holder.network).copied().unwrap_or(0);
        let patience = |holder: &Holder| if size(holder) == largest { STALLED } else { DELIVERY };
        let is_due = |(holder, since): &&(Holder, Instant)| now >= *since + patience(holder);
        let first = stuck.iter().enumerate().filter(|(_, entry)| is_due(entry));
        let Some((at, _)) = first.max_by_key(|(at, (holder, _))| (size(holder), std::cmp::Reverse(*at))) else { break };
        let (Holder { key, peer, network, .. }, _) = stuck.remove(at);
        if let Some(size) = sizes.get_mut(&network) {
            *size -= 1;
        }
        chosen.push((key, peer));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Key, last byte of the address, and for how many seconds it has been stuck (0: it has not).
    fn chosen(holders: &[(Key, u8, u64)], most: usize) -> Vec<Key> {
        let now = Instant::now() + STALLED * 100;
        let holder = |&(key, address, stuck): &(Key, u8, u64)| Holder {
            key,
            peer: ([192, 0, 2, address], 1).into(),
            network: Network::V4(address.into()),
            stuck_since: (stuck > 0).then(|| now - Duration::from_secs(stuck)),
        };
        let ended = choose(holders.iter().map(holder).collect(), most, now);
        ended.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_crowd_goes_before_one_that_has_paused_for_longer() {
        assert_eq!(chosen(&[(1, 1, 59), (2, 2, 11), (3, 2, 12), (4, 2, 0)], 1), [3]);
        assert_eq!(chosen(&[(1, 1, 59), (2, 2, 9), (3, 2, 9)], 1), [0; 0], "its turn comes after theirs");
    }

    #[test]
    fn as_many_go_as_wait_and_no_crowd_is_ended_alone() {
        assert_eq!(chosen(&[(1, 1, 14), (2, 2, 11), (3, 2, 12), (4, 3, 13)], 3), [3, 1, 4]);
        assert_eq!(chosen(&[(1, 1, 14), (2, 2, 11)], 5), [1, 2]);
        assert_eq!(chosen(&[(1, 1, 60), (2, 2, 9), (3, 2, 9)], 5), [1], "in the end nobody may be stuck for ever");
    }

    #[test]
    fn who_makes_progress_stays() {
        assert_eq!(chosen(&[(1, 1, 0), (2, 2, 9), (3, 1, 9)], 3), [0; 0]);
    }
}
