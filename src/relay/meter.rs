//! How fast mappings carry payload now: the average over the last few seconds.

use super::command::Traffic;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The average is taken over so long, at least.
const SPAN: Duration = Duration::from_secs(5);

/// What all mappings had carried at some moments of the last seconds.
#[derive(Default)]
pub(super) struct Meter {
    samples: VecDeque<(Instant, Traffic)>,
}

impl Meter {
    /// Remembers `traffic`, which only ever grows. To be called about once a second.
    pub(super) fn sample(&mut self, now: Instant, traffic: Traffic) {
        // One sample that is older than the span is kept: the average reaches back to it.
        while self.samples.get(1).is_some_and(|(at, _)| *at + SPAN <= now) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, traffic));
    }

    /// Bytes a second, in at port1 and at port2, between the oldest sample and the newest. 0 until there are two.
    pub(super) fn rates(&self) -> [u64; 2] {
        let (Some((from, before)), Some((to, after))) = (self.samples.front(), self.samples.back()) else {
            return [0, 0];
        };
        let millis = (*to - *from).as_millis().max(1);
        let rate = |before: u64, after: u64| u64::try_from(u128::from(after - before) * 1000 / millis).unwrap_or(0);
        [rate(before.port1_rx, after.port1_rx), rate(before.port2_rx, after.port2_rx)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.rates(), [0, 0]);
        let mut traffic = Traffic::default();
        for second in 0..20 {
            meter.sample(start + Duration::from_secs(second), traffic);
            traffic.port1_rx += if second < 10 { 1_000_000 } else { 300 };
            traffic.port2_rx += 50;
        }
        assert_eq!(meter.rates(), [300, 50]);
        assert!(meter.samples.len() <= 7, "{} samples", meter.samples.len());
    }

    #[test]
    fn a_long_pause_is_averaged_over() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.sample(start, Traffic::default());
        meter.sample(start + Duration::from_secs(100), Traffic { port1_rx: 5000, ..Traffic::default() });
        assert_eq!(meter.rates(), [50, 0]);
    }
}
