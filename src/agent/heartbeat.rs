//! When a heartbeat is due, when its answer is overdue, and how the answer is told from payload. No I/O.
//!
//! Over TLS each message is a record, and nothing can be mistaken. Over plain TCP our own Connector marks where payload
//! begins ([`crate::net::marked`]), and heartbeats end there. With another one, what two writes sent may come out of
//! one read, so on a connection that serves somebody heartbeats are sent only after both directions have been
//! quiet for the whole interval, what the local side says next waits for the answer (at most [`BEAT_HOLD`]), and an
//! answer that ran together with payload before or behind it is cut off. That is the best that can be done without
//! boundaries (docs/protocol.md, section 4): an answer between two messages that ran together looks like payload.

use crate::limits::BEAT_HOLD;
use crate::net::buffers::Desk;
use crate::net::link::{Fault, Got, Link};
use crate::net::marked::Marked;
use std::time::{Duration, Instant};

/// The heartbeats of one authorized connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the last one was sent, or the connection was authorized.
    last: Instant,
    awaited: Option<Awaited>,
}

/// Answers that have not come yet.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    count: usize,
    /// When the first of these heartbeats was sent, or the answer before that one came.
    since: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, awaited: None }
    }

    /// When the next heartbeat is due. `quiet_since`: where a busy connection must not be disturbed, when the last
    /// byte went either way.
    pub(super) fn due(&self, interval: Duration, quiet_since: Option<Instant>) -> Instant {
        quiet_since.map_or(self.last, |since| since.max(self.last)) + interval
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last = now;
        let Awaited { count, since } = self.awaited.unwrap_or(Awaited { count: 0, since: now });
        self.awaited = Some(Awaited { count: count + 1, since });
    }

    /// So many answers have come.
    pub(super) fn answered(&mut self, answers: usize, now: Instant) {
        if let (Some(Awaited { count, .. }), 1..) = (self.awaited, answers) {
            let count = count.saturating_sub(answers);
            self.awaited = (count > 0).then_some(Awaited { count, since: now });
        }
    }

    /// How many answers are to come.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.map_or(0, |awaited| awaited.count)
    }

    /// When the connection is dead unless something is heard before: `threshold` after the first heartbeat without
    /// an answer, and after the last byte. `None`: nothing is awaited.
    pub(super) fn dead_at(&self, heard: Instant, threshold: Duration) -> Option<Instant> {
        self.awaited.map(|awaited| awaited.since.max(heard) + threshold)
    }

    /// Until when payload must not follow the last heartbeat over plain TCP; `None`: it may.
    pub(super) fn hold(&self, now: Instant) -> Option<Instant> {
        self.awaited.map(|_| self.last + BEAT_HOLD).filter(|&until| now < until)
    }
}

/// Takes in the answers before the marker behind which payload begins. `None`: it has come, or there is none.
pub(super) fn hear_marker(
    link: &mut Link,
    pulse: &mut Pulse,
    marked: &mut Option<Marked>,
    desk: &mut Desk,
    now: Instant,
) -> Result<Option<Got>, Fault> {
    let Some(marked) = marked.as_mut().filter(|marked| !marked.hears_payload()) else { return Ok(None) };
    let (answers, got) = marked.hear(link, desk, now)?;
    pulse.answered(answers, now);
    Ok(Some(got).filter(|_| !marked.hears_payload()))
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
