//! A Controller's connection. No I/O.

use super::caller::ApiCaller;
use super::request::Collector;
use crate::limits::{ANSWER_RATE, AUTHENTICATION, KEEP_ALIVE, REQUEST_TIME};
use crate::net::link::Link;
use crate::net::reactor::Key;
use crate::relay::queue::Ticket;
use std::time::{Duration, Instant};

/// A Controller's connection.
pub(crate) struct Api {
    pub(in crate::relay) caller: ApiCaller,
    pub(in crate::relay) collector: Collector,
    pub(in crate::relay) phase: Phase,
    /// When the first byte of a request that is not complete was found: behind an answer, once that has been taken.
    pub(in crate::relay) partial: Option<Instant>,
    /// Its place among all of them, in the order in which their last request was complete or they were made.
    pub(in crate::relay) ticket: Ticket,
    pub(in crate::relay) standing: Standing,
    made: Instant,
    /// When a request was complete; then, how far its answer has come at [`ANSWER_RATE`].
    pub(in crate::relay) active: Instant,
}

/// Whose connection it is, which is also where it has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Standing {
    Controller,
    /// Its address is not in `controllers`: the answer to its request is that.
    Unlisted,
    /// At the port of `metricslisten`.
    Monitor,
}

/// A Controller's connection reads one request, and nothing more until that is answered.
pub(in crate::relay) enum Phase {
    Reading,
    /// `rest`: what of the request the backend has not taken yet. `last`: no request will follow.
    Asking {
        backend: Key,
        rest: Vec<u8>,
        last: bool,
    },
}

/// Our connection to the HTTP parser, for one request of one Controller's connection.
pub(crate) struct Backend {
    pub(in crate::relay) client: Key,
}

impl Api {
    pub(in crate::relay) fn new(caller: ApiCaller, ticket: Ticket, standing: Standing, now: Instant) -> Self {
        let collector = Collector::default();
        Self { caller, collector, phase: Phase::Reading, partial: None, ticket, standing, made: now, active: now }
    }

    pub(in crate::relay) fn deadline(&self, link: &Link) -> Instant {
        match self.partial {
            _ if !link.is_open() => self.made + AUTHENTICATION,
            Some(since) => since + REQUEST_TIME,
            None => self.active + KEEP_ALIVE,
        }
    }

    /// The lower, the sooner it goes when there are too many: who is being answered stays longest.
    pub(in crate::relay) fn rank(&self) -> u8 {
        match self.phase {
            Phase::Reading => 1,
            Phase::Asking { .. } => 2,
        }
    }

    /// So many bytes of the answer went through: that much time they are worth, and no more.
    pub(in crate::relay) fn note_taken(&mut self, bytes: u64, now: Instant) {
        let worth = Duration::from_millis(bytes.saturating_mul(1000) / ANSWER_RATE);
        self.active = (self.active + worth).min(now);
    }

    /// No request is on its way to its answer.
    pub(in crate::relay) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::queue::Queue;

    #[test]
    fn an_answer_is_taken_at_a_rate_and_not_a_byte_at_a_time() {
        let start = Instant::now();
        let caller = ApiCaller::of(([192, 0, 2, 1], 5).into(), ([192, 0, 2, 2], 80).into());
        let fresh = || Api::new(caller, Queue::default().join(1), Standing::Controller, start);
        let seconds = |n| start + Duration::from_secs(n);
        let (mut slow, mut steady) = (fresh(), fresh());
        for second in 1..=600 {
            slow.note_taken(1, seconds(second));
            steady.note_taken(ANSWER_RATE, seconds(second));
        }
        assert!(slow.active + KEEP_ALIVE < seconds(61), "ten minutes for 600 bytes");
        assert_eq!(steady.active, seconds(600));
        // What was taken at once is no credit for later.
        steady.note_taken(100 << 20, seconds(601));
        assert_eq!(steady.active, seconds(601));
    }
}
