//! Connections that agents have been asked for and that have not come yet (docs/protocol.md, section 10, WANT). No I/O.

use crate::limits::WANT_AGAIN;
use crate::net::reactor::Key;
use std::time::Instant;

/// How many more connections an agent port has asked for, that have not come yet.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    count: usize,
    /// From then on they are not waited for any more.
    until: Option<Instant>,
    /// The agent that was told of a user last.
    pub(super) asked: Option<Key>,
}

impl Wanted {
    /// One has come.
    pub(super) fn has_come(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// How many are to be asked for: `needed`, of which some may be on their way, if there are `places` for so many.
    pub(super) fn more(&mut self, needed: usize, places: usize, now: Instant) -> u16 {
        if self.until.is_some_and(|until| until <= now) {
            self.count = 0;
        }
        let more = needed.min(places).saturating_sub(self.count);
        if more > 0 {
            self.count += more;
            self.until = Some(now + WANT_AGAIN);
        }
        more.try_into().unwrap_or(u16::MAX)
    }
}
