//! An API request that goes no further than the event loop: a complete answer, ready to be sent, after
//! which the connection is closed.

use crate::failure;
use crate::relay::counters::Label;
use std::net::IpAddr;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: Status,
    reason: String,
}

/// The HTTP statuses that the loop answers by itself: number and phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, &'static str);

impl Status {
    pub const MALFORMED: Self = Self(400, "Bad Request");
    pub const FORBIDDEN: Self = Self(403, "Forbidden");
    pub const TIMED_OUT: Self = Self(408, "Request Timeout");
    pub const BODY_TOO_LARGE: Self = Self(413, "Content Too Large");
    pub const TARGET_TOO_LONG: Self = Self(414, "URI Too Long");
    pub const UNKNOWN_EXPECTATION: Self = Self(417, "Expectation Failed");
    pub const HEAD_TOO_LARGE: Self = Self(431, "Request Header Fields Too Large");
    pub const UNKNOWN_ENCODING: Self = Self(501, "Not Implemented");
    pub const UNAVAILABLE: Self = Self(503, "Service Unavailable");
    pub const UNKNOWN_VERSION: Self = Self(505, "HTTP Version Not Supported");
}

impl Label for Status {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::MALFORMED, "400"),
        (Self::FORBIDDEN, "403"),
        (Self::TIMED_OUT, "408"),
        (Self::BODY_TOO_LARGE, "413"),
        (Self::TARGET_TOO_LONG, "414"),
        (Self::UNKNOWN_EXPECTATION, "417"),
        (Self::HEAD_TOO_LARGE, "431"),
        (Self::UNKNOWN_ENCODING, "501"),
        (Self::UNAVAILABLE, "503"),
        (Self::UNKNOWN_VERSION, "505"),
    ];

    fn place(self) -> usize {
        Self::ALL.iter().position(|(status, _)| *status == self).unwrap_or_default()
    }
}

impl Refusal {
    pub(super) fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The request was not complete in time.
    pub fn timed_out() -> Self {
        let seconds = crate::limits::REQUEST_TIME.as_secs();
        Self::new(Status::TIMED_OUT, format!("the request was not complete within {seconds} s"))
    }

    /// The control thread cannot be reached: the system has no more descriptors or memory, say.
    pub fn unavailable(cause: &std::io::Error) -> Self {
        Self::new(Status::UNAVAILABLE, format!("the request cannot be handed over: {cause}; try again soon"))
    }

    /// `ip` may not call the API.
    pub fn not_a_controller(ip: IpAddr) -> Self {
        Self::new(Status::FORBIDDEN, failure::not_a_controller(ip))
    }

    pub fn status(&self) -> Status {
        self.status
    }

    #[cfg(test)]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The whole answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { status: Status(number, phrase), reason } = self;
        let body = failure::body(phrase, reason);
        let length = body.len();
        format!(
            "HTTP/1.1 {number} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
