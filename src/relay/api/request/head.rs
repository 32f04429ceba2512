//! A request's line and headers: understood strictly, kept only as far as the API looks at them.

use super::{body_too_large, malformed};
use crate::limits::REQUEST_BODY;
use crate::relay::api::caller::{self, ApiCaller};
use crate::relay::api::refusal::{Refusal, Status};

/// More header lines than any client of the API sends.
const HEADERS: usize = 100;
/// In a rewritten request: a browser sent it on behalf of a web page.
pub const FROM_A_PAGE: &str = "X-Connector-Page";

/// What matters of a head.
#[derive(Debug)]
pub(super) struct Head {
    /// The request line for tiny_http.
    line: String,
    /// The headers for tiny_http that do not depend on the body or the caller.
    headers: String,
    pub framing: Framing,
    /// The client waits for `100 Continue`.
    pub waits: bool,
    /// No request follows on this connection.
    pub last: bool,
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes, at most [`REQUEST_BODY`].
    Sized(usize),
    Chunked,
}

/// Where the head ends, or the lines behind the last chunk, if they do: behind an empty line. Bytes before `seen` have been looked at before.
///
/// What can be no head is refused here at once and not when its time is over: a TLS handshake on a
/// plain port, say. A line ends with CR LF and neither stands alone, for what one program takes as a
/// line's end and another does not is how requests are smuggled.
pub(super) fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    let mut from = seen;
    while let Some(end) = find_line_end(bytes, from)? {
        if end == 0 || bytes[..end].ends_with(b"\r\n") {
            return Ok(Some(end + 2));
        }
        from = end + 2;
    }
    Ok(None)
}

/// Where the line ends that stands at `from`, or has begun before: its CR LF is at the answer. The same rules for every
/// line of a request, those between chunks and behind them included.
pub(super) fn find_line_end(bytes: &[u8], from: usize) -> Result<Option<usize>, Refusal> {
    for at in from..bytes.len() {
        let after_cr = at > 0 && bytes[at - 1] == b'\r';
        match bytes[at] {
            b'\n' if after_cr => return Ok(Some(at - 1)),
            b'\n' => return Err(malformed("a line ends with LF alone, expected CR LF")),
            _ if after_cr => return Err(malformed("a CR stands alone, expected CR LF")),
            b'\r' | b'\t' => {}
            byte if byte.is_ascii_control() => return Err(malformed("this is no HTTP request")),
            _ => {}
        }
    }
    Ok(None)
}

/// The lines behind the last chunk: each a name, a colon and a value, as in a head.
pub(super) fn expect_headers(bytes: &[u8]) -> Result<(), Refusal> {
    match httparse::parse_headers(bytes, &mut [httparse::EMPTY_HEADER; HEADERS]) {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(malformed("a trailer ends too early")),
        Err(error) => Err(malformed(format!("a trailer is malformed: {error}"))),
    }
}

/// Understands a head, up to and including its empty line.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(malformed("the head ends too early")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(Status::HEAD_TOO_LARGE, format!("more than {HEADERS} header lines")));
        }
        Err(httparse::Error::Version) if names_a_version(bytes) => {
            return Err(Refusal::new(Status::UNKNOWN_VERSION, "expected HTTP/1.1 or HTTP/1.0"));
        }
        Err(error) => return Err(malformed(format!("the request line or a header is malformed: {error}"))),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(malformed("the request line is malformed"));
    };
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the request's target is not ASCII"));
    }
    let (headers, is_http_1_0) = (Headers(request.headers), version == 0);
    let head = Head {
        line: format!("{method} {target} HTTP/1.1\r\n"),
        headers: headers.kept()?,
        framing: headers.framing(is_http_1_0)?,
        waits: headers.waits(is_http_1_0)?,
        last: is_http_1_0 || headers.closes(),
    };
    headers.expect_host(is_http_1_0)?;
    Ok(head)
}

/// Whether the request line's third word at least looks like a version of HTTP.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').nth(2).is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// The header lines of a request.
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a httparse::Header<'a>> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name))
    }

    /// A header that decides something. It may come once: of two that differ, who is to say which one the next reader
    /// believes.
    fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut found = self.all(name);
        let Some(header) = found.next() else { return Ok(None) };
        if let Some(second) = found.next() {
            return Err(malformed(format!("{} is given twice", second.name)));
        }
        match std::str::from_utf8(header.value.trim_ascii()) {
            Ok(value) if value.is_ascii() => Ok(Some(value)),
            _ => Err(malformed(format!("{} is not ASCII", header.name))),
        }
    }

    /// What the API looks at, written anew.
    fn kept(&self) -> Result<String, Refusal> {
        let mut kept = String::new();
        for name in ["Content-Type", "Authorization"] {
            if let Some(value) = self.one(name)? {
                kept.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        // A browser tells which page a request comes from, in one way or the other: no page of ours exists.
        // `none`: it is the person at the browser who has asked.
        let from_elsewhere = |header: &httparse::Header| !header.value.trim_ascii().eq_ignore_ascii_case(b"none");
        if self.all("Origin").next().is_some() || self.all("Sec-Fetch-Site").any(from_elsewhere) {
            kept.push_str(&format!("{FROM_A_PAGE}: yes\r\n"));
        }
        Ok(kept)
    }

    fn framing(&self, is_http_1_0: bool) -> Result<Framing, Refusal> {
        match (self.one("Transfer-Encoding")?, self.one("Content-Length")?) {
            (Some(_), Some(_)) => Err(malformed("both Transfer-Encoding and Content-Length are given")),
            (Some(_), None) if is_http_1_0 => Err(malformed("HTTP/1.0 knows no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(Refusal::new(Status::UNKNOWN_ENCODING, "expected no Transfer-Encoding but chunked")),
            (None, Some(length)) => content_length(length).map(Framing::Sized),
            (None, None) => Ok(Framing::Sized(0)),
        }
    }

    fn waits(&self, is_http_1_0: bool) -> Result<bool, Refusal> {
        match self.one("Expect")? {
            // HTTP/1.0 has no interim answers and its clients do not wait for one.
            Some(_) if is_http_1_0 => Ok(false),
            Some(expected) if expected.eq_ignore_ascii_case("100-continue") => Ok(true),
            Some(_) => Err(Refusal::new(Status::UNKNOWN_EXPECTATION, "expected no Expect but 100-continue")),
            None => Ok(false),
        }
    }

    fn closes(&self) -> bool {
        let mut words = self.all("Connection").flat_map(|header| header.value.split(|byte| *byte == b','));
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    }

    /// HTTP/1.1 wants it (RFC 9112, section 3.2), though nothing here goes by it; HTTP/1.0 knows none.
    fn expect_host(&self, is_http_1_0: bool) -> Result<(), Refusal> {
        match self.one("Host")? {
            Some(host) if !may_be_host(host) => Err(malformed("Host is no name or address")),
            None if !is_http_1_0 => Err(malformed("Host is missing, HTTP/1.1 wants it")),
            _ => Ok(()),
        }
    }
}

/// Whether a name or an address may stand in Host, with a port or without.
fn may_be_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte))
}

fn content_length(digits: &str) -> Result<usize, Refusal> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("Content-Length is no number"));
    }
    match digits.parse() {
        Ok(length) if length <= REQUEST_BODY => Ok(length),
        // Only a number too large for any type fails to parse.
        _ => Err(body_too_large()),
    }
}

impl Head {
    /// The whole request as tiny_http shall see it.
    pub fn rewrite(&self, body: &[u8], caller: &ApiCaller) -> Vec<u8> {
        let Self { line, headers, .. } = self;
        let (name, peer, length) = (caller::HEADER, caller.write(), body.len());
        let head = format!("{line}{name}: {peer}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        [head.as_bytes(), body].concat()
    }
}
