//! When a heartbeat is due, when its answer is overdue, and how the answer is told from payload. No I/O.
//!
//! Over TLS each message is a record, and nothing can be mistaken. Over plain TCP our own Connector marks where payload
//! begins ([`crate::net::marked`]), and heartbeats end there. With another one, what two writes sent may come out of
//! one read, so on a connection that serves somebody heartbeats are sent only after both directions have been
//! quiet for the whole interval, what the local side says next waits for the answer (at most [`BEAT_HOLD`]), and an
//! answer that ran together with payload before or behind it is cut off. That is the best that can be done without
//! boundaries (docs/protocol.md, section 4): an answer between two messages that ran together looks like payload.

use crate::limits::BEAT_HOLD;
use std::time::{Duration, Instant};

/// The heartbeats of one authorized connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the last one was sent, or the connection was authorized.
    last: Instant,
    /// How many answers are to come.
    awaited: usize,
    /// When the first of the heartbeats without an answer was sent, or the answer before that one came.
    since: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, awaited: 0, since: now }
    }

    /// When the next heartbeat is due. `quiet_since`: where a busy connection must not be disturbed, when the last
    /// byte went either way.
    pub(super) fn due(&self, interval: Duration, quiet_since: Option<Instant>) -> Instant {
        quiet_since.map_or(self.last, |since| since.max(self.last)) + interval
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last = now;
        if self.awaited == 0 {
            self.since = now;
        }
        self.awaited += 1;
    }

    /// So many answers have come.
    pub(super) fn answered(&mut self, answers: usize, now: Instant) {
        if self.awaited > 0 && answers > 0 {
            self.awaited = self.awaited.saturating_sub(answers);
            self.since = now;
        }
    }

    /// How many answers are to come.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    /// When the connection is dead unless something is heard before: `threshold` after the first heartbeat without
    /// an answer, and after the last byte. `None`: nothing is awaited.
    pub(super) fn dead_at(&self, heard: Instant, threshold: Duration) -> Option<Instant> {
        (self.awaited > 0).then(|| self.since.max(heard) + threshold)
    }

    /// Until when payload must not follow the last heartbeat over plain TCP; `None`: it may.
    pub(super) fn hold(&self, now: Instant) -> Option<Instant> {
        Some(self.last + BEAT_HOLD).filter(|&until| self.awaited > 0 && now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_busy_plain_connection_is_not_disturbed() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.due(SECOND, None), start + SECOND);
        assert_eq!(pulse.due(SECOND, Some(start + SECOND)), start + SECOND * 2);
    }

    #[test]
    fn only_an_unanswered_heartbeat_makes_a_connection_dead() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.dead_at(start, SECOND), None);
        pulse.sent(start + SECOND);
        pulse.sent(start + SECOND * 2);
        assert_eq!(pulse.dead_at(start, SECOND), Some(start + SECOND * 2), "counted from the first");
        assert_eq!(pulse.dead_at(start + SECOND * 3, SECOND), Some(start + SECOND * 4), "bytes are life");
        pulse.answered(1, start + SECOND * 3);
        assert_eq!(pulse.dead_at(start, SECOND), Some(start + SECOND * 4), "one more is awaited");
        pulse.answered(1, start + SECOND * 3);
        assert_eq!(pulse.dead_at(start, SECOND), None);
    }

    #[test]
    fn payload_waits_for_the_answer_but_not_for_ever() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.hold(start), None);
        pulse.sent(start);
        assert_eq!(pulse.hold(start), Some(start + BEAT_HOLD));
        assert_eq!(pulse.hold(start + BEAT_HOLD), None);
        pulse.answered(1, start);
        assert_eq!(pulse.hold(start), None);
    }
}
