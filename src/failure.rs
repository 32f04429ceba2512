//! The body of an API answer that says no: the same JSON whoever says it, the control thread or the
//! event loop in front of it (docs/protocol.md, "Control API").

use crate::clock::timestamp;
use serde::Serialize;
use std::net::IpAddr;

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
