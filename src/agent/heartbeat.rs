//! When a heartbeat is due, when its answer is overdue, and how the answer is told from payload. No I/O.
//!
//! Over TLS each message is a record, and nothing can be mistaken. Over plain TCP what two writes sent may come out
//! of one read, so on a connection that serves somebody heartbeats are sent only after both directions have been
//! quiet for the whole interval, what the local side says next waits for the answer (at most
//! [`BEAT_HOLD`]), and an answer that ran together with payload is cut off. docs/protocol.md, section 4.

use crate::limits::BEAT_HOLD;
use crate::net::wire::{BEAT, beats};
use std::time::{Duration, Instant};

/// The heartbeats of one authorized connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the last one was sent, or the connection was authorized.
    last: Instant,
    /// When the first one was sent of those that have not been answered.
    unanswered: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, unanswered: None }
    }

    /// When the next heartbeat is due. `quiet_since`: where a busy connection must not be disturbed, when the last
    /// byte went either way.
    pub(super) fn due(&self, interval: Duration, quiet_since: Option<Instant>) -> Instant {
        quiet_since.map_or(self.last, |since| since.max(self.last)) + interval
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last = now;
        self.unanswered.get_or_insert(now);
    }

    pub(super) fn answered(&mut self) {
        self.unanswered = None;
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    /// When the connection is dead unless something is heard before: `threshold` after the first heartbeat without
    /// an answer, and after the last byte. `None`: nothing is awaited.
    pub(super) fn dead_at(&self, heard: Instant, threshold: Duration) -> Option<Instant> {
        self.unanswered.map(|since| since.max(heard) + threshold)
    }

    /// Until when payload must not follow the last heartbeat over plain TCP; `None`: it may.
    pub(super) fn hold(&self, now: Instant) -> Option<Instant> {
        self.unanswered.map(|_| self.last + BEAT_HOLD).filter(|&until| now < until)
    }
}

/// Takes the answers out of what one read brought: what is left is payload. True: there was an answer.
///
/// `awaited`: over plain TCP, while an answer is due, it may have run together with payload before or behind it.
pub(super) fn sift(message: &[u8], awaited: bool) -> (&[u8], bool) {
    if beats(message) > 0 {
        return (&[], true);
    }
    if !awaited {
        return (message, false);
    }
    match message.strip_prefix(BEAT).or_else(|| message.strip_suffix(BEAT)) {
        Some(payload) => (payload, true),
        None => (message, false),
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
        pulse.answered();
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
        pulse.answered();
        assert_eq!(pulse.hold(start), None);
    }

    #[test]
    fn answers_are_cut_off_only_while_they_are_awaited() {
        for awaited in [false, true] {
            assert_eq!(sift(b"BEAT", awaited), (&b""[..], true));
            assert_eq!(sift(b"BEATBEAT", awaited), (&b""[..], true));
            assert_eq!(sift(b"payload", awaited), (&b"payload"[..], false));
        }
        assert_eq!(sift(b"BEATpayload", true), (&b"payload"[..], true));
        assert_eq!(sift(b"payloadBEAT", true), (&b"payload"[..], true));
        assert_eq!(sift(b"BEATpayload", false), (&b"BEATpayload"[..], false));
    }
}
