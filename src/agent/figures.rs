//! What is counted of a service, for `agent status`.

use crate::clock::{self, timestamp};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

pub(super) struct Figures {
    /// Since when the service is as its settings say.
    pub(super) since: SystemTime,
    /// Sessions that have been or are.
    pub(super) sessions: u64,
    /// Bytes that came through the Connector ...
    pub(super) received: u64,
    /// ... and that went there.
    pub(super) sent: u64,
    pub(super) last_error: Option<LastError>,
}

/// What went wrong last. It may be over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object about an error")]
pub struct LastError {
    /// Milliseconds since the epoch.
    pub timestamp: u64,
    pub problem: String,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self { since: clock::now(), sessions: 0, received: 0, sent: 0, last_error: None }
    }

    pub(super) fn failed(&mut self, problem: impl ToString) {
        self.last_error = Some(LastError { timestamp: timestamp(), problem: problem.to_string() });
    }
}
