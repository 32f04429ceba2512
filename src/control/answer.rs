//! What the API answers: an HTTP status and a JSON body.

use crate::failure;
use serde::Serialize;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    /// JSON.
    pub body: String,
    /// A header that this status asks for.
    pub header: Option<(&'static str, &'static str)>,
    /// Once this answer is written, the daemon ends.
    pub stops: bool,
}

impl Answer {
    /// 200, with `body` as JSON.
    pub fn ok(body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("answers hold only strings and numbers");
        Self { status: 200, body, header: None, stops: false }
    }

    /// `error` says what failed, `reason` why and what was expected.
    pub fn failed(status: u16, error: &str, reason: &str) -> Self {
        Self { status, body: failure::body(error, reason), header: None, stops: false }
    }

    /// With a header that goes with the status.
    pub fn with_header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}
