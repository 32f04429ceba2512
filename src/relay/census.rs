//! How many of something each network has.

use crate::network::Network;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Census {
    counts: BTreeMap<Network, usize>,
}

impl Census {
    pub(super) fn add(&mut self, network: Network) {
        *self.counts.entry(network).or_default() += 1;
    }

    pub(super) fn remove(&mut self, network: Network) {
        let Some(count) = self.counts.get_mut(&network) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&network);
        }
    }

    pub(super) fn of(&self, network: Network) -> usize {
        self.counts.get(&network).copied().unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Network, usize)> {
        self.counts.iter().map(|(&network, &count)| (network, count))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
