//! What a peer says to the broker: one JSON object, in whatever pieces it comes. Pure.
//!
//! Nothing tells where the object ends but the object itself. Each byte is looked at once, so that a peer that
//! sends single bytes costs no more than one that sends all at once; the JSON is read when it is complete.

use super::entries::Caller;
use crate::json;
use crate::limits::BROKER_REQUEST;
use crate::mapping::FieldError;
use crate::secret::Secret;
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// A peer wants to meet the other one of a direct entry.
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) passkey: Secret,
    pub(crate) caller: Caller,
}

impl Request {
    /// What it is judged by.
    pub(super) fn claim(&self) -> Vec<u8> {
        [self.id.as_bytes(), b"\0", self.passkey.expose().as_bytes()].concat()
    }
}

/// What has come of the bytes so far.
pub(crate) enum Progress {
    Incomplete,
    Complete(Request),
    /// Never a request; the peer is told why. Not for the log: it may quote what was said.
    Wrong(String),
}

/// Collects the request of one connection.
#[derive(Default)]
pub(crate) struct Collector {
    bytes: Vec<u8>,
    /// Braces that are open.
    depth: usize,
    text: Text,
}

/// Whether the next byte is part of a string, where braces mean nothing.
#[derive(Clone, Copy, Default)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

impl Collector {
    /// Takes what `peer` has sent. To be called until there is an outcome; what stands behind the object is ignored.
    pub(crate) fn take(&mut self, bytes: &[u8], peer: SocketAddr) -> Progress {
        for &byte in bytes {
            if self.depth == 0 && byte.is_ascii_whitespace() {
                continue;
            }
            if self.depth == 0 && byte != b'{' {
                return Progress::Wrong("expected a JSON object".to_owned());
            }
            if self.bytes.len() == BROKER_REQUEST {
                return Progress::Wrong(format!("expected at most {BROKER_REQUEST} bytes"));
            }
            self.bytes.push(byte);
            if self.closes_with(byte) {
                return match understand(&self.bytes, peer) {
                    Ok(request) => Progress::Complete(request),
                    Err(reason) => Progress::Wrong(reason),
                };
            }
        }
        Progress::Incomplete
    }

    /// True: `byte` is the brace that closes the object.
    fn closes_with(&mut self, byte: u8) -> bool {
        match (self.text, byte) {
            (Text::Escaped, _) | (Text::Outside, b'"') => self.text = Text::Inside,
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Inside, b'"') => self.text = Text::Outside,
            (Text::Outside, b'{') => self.depth += 1,
            (Text::Outside, b'}') => self.depth -= 1,
            _ => {}
        }
        self.depth == 0
    }
}

fn understand(bytes: &[u8], address: SocketAddr) -> Result<Request, String> {
    let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| json::explained(&error))?;
    let request = || {
        Ok(Request {
            id: text(&fields, "id", "the id of a direct entry")?,
            passkey: Secret::new(text(&fields, "passkey", "the passkey of the direct entry")?),
            caller: Caller {
                address,
                certificate: text(&fields, "certificate", "the peer's certificate, a string")?,
                local_ip: text(&fields, "localip", "the peer's own address, a string")?,
            },
        })
    };
    request().map_err(|error: FieldError| error.to_string())
}

fn text(fields: &Map<String, Value>, name: &'static str, expected: &str) -> Result<String, FieldError> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(FieldError::new(name, other, expected)),
        None => Err(FieldError::missing(name, expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer() -> SocketAddr {
        "192.0.2.1:4000".parse().unwrap()
    }

    fn whole() -> Value {
        json!({"id": "an id", "passkey": "a \"key\" }\\", "certificate": "{{\\", "localip": "10.0.0.1", "more": {"x": [{}]}})
    }

    /// The reason why this is no request.
    fn reason(bytes: &[u8]) -> String {
        match Collector::default().take(bytes, peer()) {
            Progress::Wrong(reason) => reason,
            Progress::Incomplete => "incomplete".to_owned(),
            Progress::Complete(_) => "a request".to_owned(),
        }
    }

    #[test]
    fn a_request_may_come_in_any_pieces() {
        let text = format!("\r\n {} behind it", whole());
        for size in [1, 2, 7, text.len()] {
            let mut collector = Collector::default();
            let request = text.as_bytes().chunks(size).find_map(|piece| match collector.take(piece, peer()) {
                Progress::Complete(request) => Some(request),
                Progress::Incomplete => None,
                Progress::Wrong(reason) => panic!("{reason}"),
            });
            let request = request.expect("it is complete");
            assert_eq!(request.id, "an id");
            assert!(request.passkey.matches(b"a \"key\" }\\"));
            let caller = Caller { address: peer(), certificate: "{{\\".into(), local_ip: "10.0.0.1".into() };
            assert_eq!(request.caller, caller);
        }
    }

    #[test]
    fn without_its_last_byte_it_is_incomplete() {
        let text = whole().to_string();
        assert_eq!(reason(&text.as_bytes()[..text.len() - 1]), "incomplete");
        assert_eq!(reason(b""), "incomplete");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (bytes, complaint) in [
            (&b"GET / HTTP/1.1"[..], "expected a JSON object"),
            (b"[]", "expected a JSON object"),
            (b"}", "expected a JSON object"),
            (b"{]}", "line 1, column 2"),
            (b"{\"id\xff\":1}", "line 1"),
        ] {
            assert!(reason(bytes).contains(complaint), "{}", reason(bytes));
        }
        for field in ["id", "passkey", "certificate", "localip"] {
            let mut without = whole();
            without.as_object_mut().unwrap().remove(field);
            assert!(reason(without.to_string().as_bytes()).starts_with(&format!("{field} is missing")));
            let mut wrong = whole();
            wrong[field] = json!(5);
            assert!(reason(wrong.to_string().as_bytes()).starts_with(&format!("{field} is 5")));
        }
    }

    #[test]
    fn sixteen_kibibytes_are_the_most() {
        let with = |padding: usize| {
            let mut json = whole();
            json["certificate"] = "x".repeat(padding).into();
            json.to_string()
        };
        let most = with(BROKER_REQUEST - with(0).len());
        assert_eq!(most.len(), BROKER_REQUEST);
        assert_eq!(reason(most.as_bytes()), "a request");
        assert!(reason(with(BROKER_REQUEST - with(0).len() + 1).as_bytes()).contains("at most"));
        assert!(reason("{\"".repeat(BROKER_REQUEST).as_bytes()).contains("at most"));
    }
}
