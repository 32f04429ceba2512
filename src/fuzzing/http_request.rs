//! Requests to the API, in whatever pieces they come: what tiny_http is given of them.

use super::pieces;
use crate::limits::{REQUEST_BODY, REQUEST_HEAD};
use crate::relay::api::caller::{ApiCaller, HEADER};
use crate::relay::api::request::{Collector, Step};
use httparse::{EMPTY_HEADER, Header, Status};
use std::net::{IpAddr, Ipv4Addr};

/// Header lines of a request. Also the Collector's limit.
const HEADERS: usize = 100;
const PEER: ApiCaller = ApiCaller { ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), is_here: false, only_reads: false };

pub fn body(bytes: &[u8]) {
    let whole = collect([bytes].into_iter());
    let cut = collect(pieces(bytes));
    assert_eq!((&cut.requests, cut.refused), (&whole.requests, whole.refused), "cut and at once differ");
    let given: Vec<Understood> = whole.requests.iter().map(|request| understand_rewritten(request)).collect();
    let expected = understand_all(bytes);
    assert!(expected.starts_with(&given), "{given:?} of {expected:?}");
    if !whole.refused {
        assert_eq!(given.len(), expected.len(), "{expected:?}: requests are missing");
    }
}

struct Collected {
    requests: Vec<Vec<u8>>,
    refused: bool,
}

fn collect<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Collected {
    let (mut collector, mut collected) = (Collector::default(), Collected { requests: Vec::new(), refused: false });
    let (mut over, mut continued) = (false, false);
    for piece in pieces {
        collector.push(piece);
        loop {
            match collector.next(&PEER) {
                Step::Incomplete => break,
                Step::Continue => assert!(!std::mem::replace(&mut continued, true), "told to continue twice"),
                Step::Request { bytes, last } => {
                    assert!(!over, "a request after the last one");
                    collected.requests.push(bytes);
                    (over, continued) = (last, false);
                }
                Step::Refuse(refusal) => {
                    assert!(!over, "refused after the end");
                    assert!(refusal.to_bytes().starts_with(b"HTTP/1.1 "));
                    (over, collected.refused) = (true, true);
                }
            }
        }
        assert!(collector.held() <= REQUEST_HEAD + REQUEST_BODY, "{} bytes are held", collector.held());
    }
    collected
}

/// A request's parts that the API looks at.
#[derive(Debug, PartialEq, Eq)]
struct Understood {
    line: String,
    content_type: Option<String>,
    authorization: Option<String>,
    body: Vec<u8>,
}

/// Reads what is given to tiny_http: it must be one request, all of it, and hold nothing else of the original.
fn understand_rewritten(bytes: &[u8]) -> Understood {
    let mut headers = [EMPTY_HEADER; 5];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(Status::Complete(head)) = request.parse(bytes) else { panic!("{}", bytes.escape_ascii()) };
    assert_eq!(request.version, Some(1));
    let value = |name: &str| {
        let mut found = request.headers.iter().filter(|header| header.name == name);
        let value = found.next().map(|header| std::str::from_utf8(header.value).expect("ASCII").to_owned());
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    assert_eq!(value(HEADER).and_then(|value| ApiCaller::read(&value)), Some(PEER));
    assert_eq!(value("Connection").as_deref(), Some("close"));
    assert_eq!(value("Content-Length"), Some((bytes.len() - head).to_string()));
    let (content_type, authorization) = (value("Content-Type"), value("Authorization"));
    let others = usize::from(content_type.is_some()) + usize::from(authorization.is_some());
    assert_eq!(request.headers.len(), 3 + others);
    Understood { line: line(&request), content_type, authorization, body: bytes[head..].to_vec() }
}

fn line(request: &httparse::Request) -> String {
    format!("{} {}", request.method.unwrap_or_default(), request.path.unwrap_or_default())
}

/// Reads the original by itself, as loosely as httparse does, up to what is incomplete or makes no sense.
fn understand_all(mut rest: &[u8]) -> Vec<Understood> {
    let mut all = Vec::new();
    loop {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(Status::Complete(head)) = request.parse(rest) else { return all };
        let Some((body, used)) = read_body(request.headers, &rest[head..]) else { return all };
        let text =
            |name| value(request.headers, name).map(|value| String::from_utf8_lossy(value.trim_ascii()).into_owned());
        let (content_type, authorization) = (text("content-type"), text("authorization"));
        all.push(Understood { line: line(&request), content_type, authorization, body });
        let ends = |header: &Header| {
            let mut words = header.value.split(|byte| *byte == b',');
            header.name.eq_ignore_ascii_case("connection")
                && words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
        };
        if request.version == Some(0) || request.headers.iter().any(ends) {
            return all;
        }
        rest = &rest[head + used..];
    }
}

fn value<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// A request's body and how many bytes it takes; `None`: it is not all there, or cannot be read.
fn read_body(headers: &[Header], rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    if value(headers, "transfer-encoding").is_some() {
        return read_chunks(rest);
    }
    let length = match value(headers, "content-length") {
        Some(digits) => std::str::from_utf8(digits.trim_ascii()).ok()?.parse().ok()?,
        None => 0,
    };
    Some((rest.get(..length)?.to_vec(), length))
}

fn read_chunks(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Ok(Status::Complete((used, size))) = httparse::parse_chunk_size(&rest[at..]) else { return None };
        at += used;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size.try_into().ok()?)?;
        body.extend_from_slice(rest.get(at..end)?);
        at = end;
        rest[at..].starts_with(b"\r\n").then_some(())?;
        at += 2;
    }
    loop {
        let line = rest[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((body, at));
        }
    }
}
