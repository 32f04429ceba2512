//! Which ports mappings may have, and which are taken.
//!
//! The control thread owns the [`Ports`]. It knows nothing of sockets: whether a port binds is
//! found out by the event loop, and a port that does not is given back like any other.

pub mod ephemeral;

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `7000` or `6000-6001` of the settings: at least one port, none of them 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let port = |digits: &str| {
            let digits = digits.trim();
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Digits that do not fit 16 bits are out of range, everything else is no number.
            match (plain, digits.parse::<u16>()) {
                (true, Ok(port)) if port > 0 => Ok(port),
                (true, _) => Err(format!("{text:?} is out of range: ports are 1 to 65535")),
                (false, _) => Err(format!("{text:?} is no port and no range")),
            }
        };
        let (from, to) = (port(from)?, port(to)?);
        if from > to {
            return Err(format!("{text:?} is reversed: write \"{to}-{from}\""));
        }
        Ok(Self(from..=to))
    }
}

/// A set of ports, as a bitmap of fixed size.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    /// What is in `ports` and not in `exclude`.
    pub fn usable(ports: &[PortRange], exclude: &[PortRange]) -> Self {
        let mut set: Self = ports.iter().flat_map(|range| range.0.clone()).collect();
        exclude.iter().flat_map(|range| range.0.clone()).for_each(|port| set.remove(port));
        set
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let (word, bit) = Self::place(port);
        self.0[word] & bit != 0
    }

    /// Adds `port`.
    pub fn insert(&mut self, port: u16) {
        let (word, bit) = Self::place(port);
        self.0[word] |= bit;
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: u16) {
        let (word, bit) = Self::place(port);
        self.0[word] &= !bit;
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The ports, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }

    /// The ports as the settings write them, `most` ranges of them.
    pub fn ranges(&self, most: usize) -> String {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if port - 1 == *last => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        let text =
            |(first, last): &(u16, u16)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
        let shown: Vec<String> = ranges.iter().take(most).map(text).collect();
        let more = if ranges.len() > most { ", ..." } else { "" };
        shown.join(", ") + more
    }

    fn place(port: u16) -> (usize, u64) {
        (usize::from(port / 64), 1 << (port % 64))
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self(Box::new([0; 1024]));
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({} ports)", self.len())
    }
}

/// Hands out usable ports.
///
/// Free ports stand in a queue, lowest first at the start: who takes a port takes the front, who
/// gives one back puts it at the end. So a port just given up is the last to come back, and stale
/// users and agents do not land in a stranger's mapping.
#[derive(Debug)]
pub struct Ports {
    usable: PortSet,
    taken: PortSet,
    /// Exactly the ports that are usable and not taken.
    free: VecDeque<u16>,
}

impl Ports {
    /// `taken` are the ports of stored mappings; they may lie outside `usable`.
    pub fn new(usable: PortSet, taken: impl IntoIterator<Item = u16>) -> Self {
        let taken: PortSet = taken.into_iter().collect();
        let free = usable.iter().filter(|port| !taken.contains(*port)).collect();
        Self { usable, taken, free }
    }

    /// Hands out the port that has been free longest.
    pub fn take(&mut self) -> Option<u16> {
        let port = self.free.pop_front()?;
        debug_assert!(!self.taken.contains(port), "port {port} is in the queue of free ports though it is taken");
        self.taken.insert(port);
        Some(port)
    }

    /// Whether the settings list this port for mappings.
    pub fn is_usable(&self, port: u16) -> bool {
        self.usable.contains(port)
    }

    /// The ports that the settings list for mappings.
    pub fn usable(&self) -> &PortSet {
        &self.usable
    }

    /// Whether nobody has this port, of those that are usable.
    pub fn is_free(&self, port: u16) -> bool {
        self.usable.contains(port) && !self.taken.contains(port)
    }

    /// Hands out this very port, which is free.
    pub fn claim(&mut self, port: u16) {
        self.free.retain(|free| *free != port);
        self.taken.insert(port);
    }

    /// Takes `port` back. Its next turn comes after that of every other free port; a port that the
    /// settings do not list (any more) is forgotten.
    pub fn give_back(&mut self, port: u16) {
        if self.taken.contains(port) && self.usable.contains(port) {
            self.free.push_back(port);
        }
        self.taken.remove(port);
    }

    /// How many ports could be handed out now.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Follows changed settings: taken ports stay taken, free ones that are still usable keep their turn.
    pub fn set_usable(&mut self, usable: PortSet) {
        let old = std::mem::replace(&mut self.usable, usable);
        self.free.retain(|port| self.usable.contains(*port));
        let fresh = self.usable.iter().filter(|port| !old.contains(*port) && !self.taken.contains(*port));
        self.free.extend(fresh);
    }
}

#[cfg(test)]
mod tests;
