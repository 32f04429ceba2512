//! What a peer says to the broker, in whatever pieces it comes.

use super::{assert_is_readable, pieces};
use crate::limits::BROKER_REQUEST;
use crate::relay::broker::request::{Collector, Progress, Request};
use crate::relay::broker::words::connect;
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// What stands around a request's strings in the other peer's answer, bytes.
const AROUND: usize = 200;

pub fn body(bytes: &[u8]) {
    let outcome = collect([bytes].into_iter());
    assert_eq!(
        collect(pieces(bytes)).map(|it| it.map(fields)),
        outcome.as_ref().map(|it| it.as_ref().map(fields_of).map_err(String::clone))
    );
    let expected = understood(bytes);
    match outcome {
        Some(Ok(request)) => {
            assert_eq!(Some(fields_of(&request)), expected);
            assert_passes_through(&request);
        }
        Some(Err(reason)) => {
            assert_is_readable(&reason);
            assert_eq!(expected, None, "{reason}");
        }
        None => assert_eq!(expected, None),
    }
}

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

/// `None`: more would be needed.
fn collect<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Result<Request, String>> {
    let mut collector = Collector::default();
    pieces.map(|piece| collector.take(piece, peer())).find_map(|progress| match progress {
        Progress::Incomplete => None,
        Progress::Complete(request) => Some(Ok(request)),
        Progress::Wrong(reason) => Some(Err(reason)),
    })
}

fn fields(request: Request) -> [String; 4] {
    fields_of(&request)
}

fn fields_of(request: &Request) -> [String; 4] {
    let Request { id, passkey, caller } = request;
    [id.clone(), passkey.expose().to_owned(), caller.certificate.clone(), caller.local_ip.clone()]
}

/// The same by another way: the first JSON value, where it ends by itself.
fn understood(bytes: &[u8]) -> Option<[String; 4]> {
    let text = bytes.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Map<String, Value>>();
    let object = values.next()?.ok()?;
    let field = |name: &str| object.get(name)?.as_str().map(str::to_owned);
    let fields = [field("id")?, field("passkey")?, field("certificate")?, field("localip")?];
    (values.byte_offset() <= BROKER_REQUEST).then_some(fields)
}

/// The other peer is told the same strings, in no more bytes.
fn assert_passes_through(request: &Request) {
    let told = connect(&request.caller, &request.caller, true);
    assert!(told.len() <= BROKER_REQUEST + AROUND, "{} bytes", told.len());
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["certificate"], &told["privateip"]),
        (&request.caller.certificate.as_str().into(), &request.caller.local_ip.as_str().into())
    );
}
