//! The body of an API answer that says no: the same JSON whoever says it, the control thread or the
//! event loop in front of it (docs/protocol.md, "Control API").

use serde::Serialize;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// `{"status":"failed","error":…,"errormessage":…,"timestamp":…}`: what failed, and why.
/// Controllers of both generations look for `errormessage`.
pub fn body(error: &str, reason: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        status: &'static str,
        error: &'a str,
        errormessage: &'a str,
        timestamp: u64,
    }
    let body = Body { status: "failed", error, errormessage: reason, timestamp: timestamp() };
    serde_json::to_string(&body).expect("strings and numbers always serialize")
}

/// Why the API is closed to a caller.
pub fn not_a_controller(address: IpAddr) -> String {
    format!("your address {address} is not in `controllers`")
}

/// Now, in milliseconds since the epoch, as every answer carries it.
pub fn timestamp() -> u64 {
    millis(SystemTime::now())
}

/// `moment` in milliseconds since the epoch; 0 if the clock stood before it.
pub fn millis(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
