//! What has become of the settings, for the metrics.

use crate::clock::timestamp;

/// What is remembered of reloads.
#[derive(Clone, Copy)]
pub(super) struct Reloads {
    /// The last one was taken over. The start counts as one.
    pub was_taken_over: bool,
    /// When settings were taken over last, milliseconds since the epoch.
    pub taken_over: u64,
}

impl Default for Reloads {
    fn default() -> Self {
        Self { was_taken_over: true, taken_over: timestamp() }
    }
}

impl Reloads {
    /// A reload was taken over, or has failed.
    pub fn note(&mut self, was_taken_over: bool) {
        self.was_taken_over = was_taken_over;
        if was_taken_over {
            self.taken_over = timestamp();
        }
    }
}
