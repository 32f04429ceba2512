//! What the loop has counted since it started: for the metrics. No I/O.

use std::time::Duration;

/// The values of one label, each with its word: what there is one counter of.
pub trait Label: Copy + 'static {
    const ALL: &'static [(Self, &'static str)];

    /// Its counter's place.
    fn place(self) -> usize;
}

/// An enum whose variants have words, in this order.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Label for $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];

            fn place(self) -> usize {
                self as usize
            }
        }

        impl $name {
            /// As logs and metrics have it.
            pub fn word(self) -> &'static str {
                Self::ALL[self as usize].1
            }
        }
    };
}

label! {
    /// How a session, or an agent's connection that was without one, ended.
    Ended {
        /// By the user.
        User = "user",
        /// By an agent.
        Agent = "agent",
        /// A connection was reset.
        Reset = "reset",
        /// A connection ended without the close_notify of TLS.
        Truncated = "truncated",
        /// An agent was silent for longer than its threshold.
        Absence = "absence",
        /// A host did not acknowledge, or took nothing of what it was sent.
        Timeout = "timeout",
        /// Nothing moved for `idletimeout`.
        Idle = "idle",
        /// All relay buffers were in use, and this one was stuck.
        Shortage = "shortage",
        /// Its mapping was removed.
        Removed = "removed",
        /// The daemon stopped.
        Stop = "stop",
        /// Another error of TLS or of the system.
        Error = "error",
    }
}

label! {
    /// Why an authorized agent's connection is gone.
    Lost {
        /// It has served its session.
        Session = "session",
        /// The agent closed it while it was free.
        Closed = "closed",
        Reset = "reset",
        Truncated = "truncated",
        Absence = "absence",
        Timeout = "timeout",
        Shortage = "shortage",
        Removed = "removed",
        Stop = "stop",
        Error = "error",
    }
}

label! {
    /// Why a user got no agent.
    Refused {
        /// Its address is not in `allow`.
        Allow = "allow",
        /// Its address has as many sessions as `maxusers` lets it.
        MaxUsers = "maxusers",
        /// No agent became free in time.
        NoAgent = "no_agent",
        /// It made room for another user, or for another connection.
        Evicted = "evicted",
        /// Its proxy did not say where it comes from.
        NoProxyHeader = "no_proxy_header",
    }
}

label! {
    /// The kinds of ports that have TLS.
    Port {
        Agent = "agent",
        User = "user",
        Api = "api",
    }
}

label! {
    /// What is limited in how often it may fail.
    Limited {
        /// Connections at an agent port that lead to nothing.
        Connections = "connections",
        /// Different wrong passcodes.
        Passcodes = "passcodes",
        /// API connections from addresses outside `controllers`.
        Api = "api",
    }
}

impl From<Ended> for Lost {
    /// Of a connection that was in no session.
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::User | Ended::Agent | Ended::Idle => Self::Closed,
            Ended::Reset => Self::Reset,
            Ended::Truncated => Self::Truncated,
            Ended::Absence => Self::Absence,
            Ended::Timeout => Self::Timeout,
            Ended::Shortage => Self::Shortage,
            Ended::Removed => Self::Removed,
            Ended::Stop => Self::Stop,
            Ended::Error => Self::Error,
        }
    }
}

/// As many values as a label has at most.
const VALUES: usize = 11;

/// A counter for each value of a label.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts<L> {
    counts: [u64; VALUES],
    label: std::marker::PhantomData<L>,
}

// Not derived: those would ask it of the label.
impl<L> Clone for Counts<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Counts<L> {}

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        const { assert!(L::ALL.len() <= VALUES) };
        Self { counts: [0; VALUES], label: std::marker::PhantomData }
    }
}

impl<L: Label> Counts<L> {
    pub fn add(&mut self, label: L) {
        self.counts[label.place()] += 1;
    }

    /// Words and numbers, also those that are zero.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        L::ALL.iter().map(|(label, word)| (*word, self.counts[label.place()]))
    }
}

/// How often a time was how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const BUCKETS: usize> {
    /// Each for itself, the last for what is longer than all bounds.
    counts: [u64; 16],
    pub sum: Duration,
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    /// `bounds`: milliseconds, ascending.
    pub fn add(&mut self, bounds: &[u64; BUCKETS], time: Duration) {
        const { assert!(BUCKETS < 16) };
        let bucket = bounds.iter().position(|&bound| time <= Duration::from_millis(bound)).unwrap_or(BUCKETS);
        self.counts[bucket] += 1;
        self.sum += time;
    }

    /// How many there were up to each bound, and of any length.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts[..=BUCKETS].iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Bounds of session durations: milliseconds, 10 ms to a day.
pub const DURATIONS: [u64; 12] =
    [10, 100, 500, 1_000, 5_000, 10_000, 60_000, 300_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000];
/// Bounds of waiting times: milliseconds. Users wait 5 s unless `waittime` says otherwise, a minute at most.
pub const WAITS: [u64; 10] = [1, 10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000, 60_000];

/// All of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions that have begun.
    pub sessions: u64,
    pub ended: Counts<Ended>,
    pub durations: Histogram<{ DURATIONS.len() }>,
    /// Of users that got an agent.
    pub waits: Histogram<{ WAITS.len() }>,
    pub refused: Counts<Refused>,
    pub agents_authorized: u64,
    pub agents_lost: Counts<Lost>,
    pub handshake_failures: Counts<Port>,
    pub rate_limited: Counts<Limited>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it_and_in_all_behind() {
        let mut histogram = Histogram::<3>::default();
        let bounds = [10, 100, 1000];
        [5, 10, 11, 5000].into_iter().for_each(|ms| histogram.add(&bounds, Duration::from_millis(ms)));
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [2, 3, 3, 4]);
        assert_eq!((histogram.count(), histogram.sum), (4, Duration::from_millis(5026)));
    }

    #[test]
    fn each_value_has_a_counter_of_its_own() {
        let mut counts = Counts::<Ended>::default();
        Ended::ALL.iter().for_each(|(ended, _)| counts.add(*ended));
        assert!(counts.iter().all(|(_, count)| count == 1));
        let words: std::collections::HashSet<_> = counts.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), Ended::ALL.len());
    }
}
