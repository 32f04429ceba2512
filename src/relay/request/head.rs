//! A request's line and headers: understood strictly, kept only as far as the API looks at them.

use super::{body_too_large, malformed};
use crate::limits::REQUEST_BODY;
use crate::relay::refusal::{Refusal, Status};
use crate::relay::seal::{self, Peer, Seal};

/// More header lines than any client of the API sends.
const HEADERS: usize = 100;
/// In a rewritten request: a browser sent it on behalf of a web page.
pub const FROM_A_PAGE: &str = "X-Connector-Page";

/// What matters of a head.
#[derive(Debug)]
pub(super) struct Head {
    method: String,
    target: String,
    content_type: Option<String>,
    authorization: Option<String>,
    /// A browser sends it on behalf of a web page.
    from_a_page: bool,
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

/// Where the head ends, if it does. Bytes before `seen` have been looked at before.
///
/// What can be no head is refused here at once and not when its time is over: a TLS handshake on a
/// plain port, say. A line ends with CR LF and neither stands alone, for what one program takes as a
/// line's end and another does not is how requests are smuggled.
pub(super) fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    let mut from = seen;
    while let Some(end) = find_line_end(bytes, from)? {
        if bytes[..end].ends_with(b"\r\n") {
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

/// A line behind the last chunk: a name, a colon and a value, as in a head.
pub(super) fn expect_header(line: &[u8]) -> Result<(), Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; 1];
    match httparse::parse_headers(&[line, b"\r\n\r\n"].concat(), &mut headers) {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(malformed("a trailer ends too early")),
        Err(error) => Err(malformed(&format!("a trailer is malformed: {error}"))),
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
            return Err(Refusal::new(Status::HeadTooLarge, format!("more than {HEADERS} header lines")));
        }
        Err(httparse::Error::Version) if names_a_version(bytes) => {
            return Err(Refusal::new(Status::UnknownVersion, "expected HTTP/1.1 or HTTP/1.0"));
        }
        Err(error) => return Err(malformed(&format!("the request line or a header is malformed: {error}"))),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(malformed("the request line is malformed"));
    };
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the request's target is not ASCII"));
    }
    Fields::read(request.headers)?.into_head(method, target, version == 0)
}

/// Whether the request line's third word at least looks like a version of HTTP.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').nth(2).is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// The headers that decide something. Each may come once: of two that differ, who is to say which
/// one the next reader believes.
#[derive(Default)]
struct Fields {
    content_length: Option<String>,
    transfer_encoding: Option<String>,
    content_type: Option<String>,
    authorization: Option<String>,
    expect: Option<String>,
    host: Option<String>,
    close: bool,
    from_a_page: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let field = match header.name.to_ascii_lowercase().as_str() {
                "content-length" => &mut fields.content_length,
                "transfer-encoding" => &mut fields.transfer_encoding,
                "content-type" => &mut fields.content_type,
                "authorization" => &mut fields.authorization,
                "expect" => &mut fields.expect,
                "host" => &mut fields.host,
                "connection" => {
                    let close = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"close");
                    fields.close |= header.value.split(|byte| *byte == b',').any(close);
                    continue;
                }
                // A browser tells which page a request comes from, in one way or the other: no page of ours exists.
                // `none`: it is the person at the browser who has asked.
                "origin" => {
                    fields.from_a_page = true;
                    continue;
                }
                "sec-fetch-site" => {
                    fields.from_a_page |= !header.value.trim_ascii().eq_ignore_ascii_case(b"none");
                    continue;
                }
                _ => continue,
            };
            let value = String::from_utf8(header.value.trim_ascii().to_vec()).ok().filter(|value| value.is_ascii());
            let value = value.ok_or_else(|| malformed(&format!("{} is not ASCII", header.name)))?;
            if field.replace(value).is_some() {
                return Err(malformed(&format!("{} is given twice", header.name)));
            }
        }
        Ok(fields)
    }

    /// HTTP/1.1 wants it (RFC 9112, section 3.2), though nothing here goes by it; HTTP/1.0 knows none.
    fn expect_host(&self, is_http_1_0: bool) -> Result<(), Refusal> {
        match &self.host {
            Some(host) if !may_be_host(host) => Err(malformed("Host is no name or address")),
            None if !is_http_1_0 => Err(malformed("Host is missing, HTTP/1.1 wants it")),
            _ => Ok(()),
        }
    }

    fn into_head(self, method: &str, target: &str, is_http_1_0: bool) -> Result<Head, Refusal> {
        let framing = match (&self.transfer_encoding, &self.content_length) {
            (Some(_), Some(_)) => return Err(malformed("both Transfer-Encoding and Content-Length are given")),
            (Some(_), None) if is_http_1_0 => return Err(malformed("HTTP/1.0 knows no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            (Some(_), None) => {
                return Err(Refusal::new(Status::UnknownEncoding, "expected no Transfer-Encoding but chunked"));
            }
            (None, Some(length)) => Framing::Sized(content_length(length)?),
            (None, None) => Framing::Sized(0),
        };
        let waits = match &self.expect {
            // HTTP/1.0 has no interim answers and its clients do not wait for one.
            Some(_) if is_http_1_0 => false,
            Some(expected) if expected.eq_ignore_ascii_case("100-continue") => true,
            Some(_) => {
                return Err(Refusal::new(Status::UnknownExpectation, "expected no Expect but 100-continue"));
            }
            None => false,
        };
        self.expect_host(is_http_1_0)?;
        Ok(Head {
            method: method.to_owned(),
            target: target.to_owned(),
            content_type: self.content_type,
            authorization: self.authorization,
            from_a_page: self.from_a_page,
            framing,
            waits,
            last: self.close || is_http_1_0,
        })
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
    pub fn rewrite(&self, body: &[u8], seal: &Seal, peer: &Peer) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\n{}: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.method,
            self.target,
            seal::HEADER,
            seal.write(peer),
            body.len()
        );
        for (name, value) in [("Content-Type", &self.content_type), ("Authorization", &self.authorization)] {
            if let Some(value) = value {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if self.from_a_page {
            text.push_str(&format!("{FROM_A_PAGE}: yes\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}
