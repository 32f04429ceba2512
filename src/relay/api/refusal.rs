//! An API request that goes no further than the event loop: a complete answer, ready to be sent, after
//! which the connection is closed.

use crate::failure;
use std::net::IpAddr;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: Status,
    reason: String,
}

/// The HTTP statuses that the loop answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Malformed = 400,
    Forbidden = 403,
    TimedOut = 408,
    BodyTooLarge = 413,
    TargetTooLong = 414,
    UnknownExpectation = 417,
    HeadTooLarge = 431,
    UnknownEncoding = 501,
    UnknownVersion = 505,
}

impl Status {
    fn phrase(self) -> &'static str {
        match self {
            Self::Malformed => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::TimedOut => "Request Timeout",
            Self::BodyTooLarge => "Content Too Large",
            Self::TargetTooLong => "URI Too Long",
            Self::UnknownExpectation => "Expectation Failed",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::UnknownEncoding => "Not Implemented",
            Self::UnknownVersion => "HTTP Version Not Supported",
        }
    }
}

impl Refusal {
    pub(super) fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The request was not complete in time.
    pub fn timed_out() -> Self {
        let seconds = crate::limits::REQUEST_TIME.as_secs();
        Self::new(Status::TimedOut, format!("the request was not complete within {seconds} s"))
    }

    /// `ip` may not call the API.
    pub fn not_a_controller(ip: IpAddr) -> Self {
        Self::new(Status::Forbidden, failure::not_a_controller(ip))
    }

    #[cfg(test)]
    pub fn status(&self) -> Status {
        self.status
    }

    #[cfg(test)]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The whole answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        let phrase = self.status.phrase();
        let body = failure::body(phrase, &self.reason);
        format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.status as u16,
            body.len(),
        )
        .into_bytes()
    }
}
