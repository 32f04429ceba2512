//! Requests as the event loop hands them over: whole, written anew by it
//! ([`relay::api::request`](crate::relay::api::request)), each on a connection of its own to a private socket.
//!
//! A lack of descriptors ends nothing: a request that cannot be taken waits in the socket's queue until it can.

use super::answer::Answer;
use crate::clock;
use crate::relay::api::caller::{self, ApiCaller};
use crate::relay::api::request::FROM_A_PAGE;
use httparse::{EMPTY_HEADER, Status};
use log::debug;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

/// Headers of a request that the loop has written: five at most.
const HEADERS: usize = 8;
/// The loop has the whole request when it connects. It takes this long at most to hand it over.
const HANDED_OVER: Duration = Duration::from_secs(5);
/// What failed for want of descriptors or memory is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// Where requests come from.
pub(super) struct Requests(UnixListener);

impl Requests {
    /// Those that come to `listener`.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next one, if it comes within `patience`.
    pub fn wait(&self, patience: Duration) -> Option<Request> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let waited = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout);
        match waited.map_err(io::Error::from).and_then(|_| self.take()) {
            Ok(request) => request,
            Err(error) => {
                debug!("no API request can be taken now: {error}");
                thread::sleep(AGAIN);
                None
            }
        }
    }

    /// The next one, if it is there.
    pub fn take(&self) -> io::Result<Option<Request>> {
        match self.0.accept() {
            Ok((stream, _)) => {
                Ok(Request::read(stream).inspect_err(|error| debug!("an API request could not be read: {error}")).ok())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A request, and the way back for its answer.
pub(super) struct Request {
    stream: UnixStream,
    pub method: String,
    pub target: String,
    /// What the loop knows of who sent it.
    pub caller: Option<ApiCaller>,
    pub content_type: Option<String>,
    pub authorization: Option<String>,
    pub from_a_page: bool,
    pub body: Vec<u8>,
    /// All of the body is there.
    pub is_whole: bool,
}

impl Request {
    fn read(mut stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(HANDED_OVER))?;
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let count = bytes.len();
            bytes.resize(count + 4096, 0);
            let read = stream.read(&mut bytes[count..])?;
            bytes.truncate(count + read);
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break (end + 4, content_length(&bytes[..end + 4])?);
            }
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let mut body = bytes.split_off(head);
        let missing = length.saturating_sub(body.len()) as u64;
        Read::by_ref(&mut stream).take(missing).read_to_end(&mut body)?;
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&bytes).map_err(io::Error::other)?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (method, target) = (text(parsed.method), text(parsed.path));
        let value = |name| value_of(parsed.headers, name).map(str::to_owned);
        Ok(Self {
            stream,
            method,
            target,
            caller: value(caller::HEADER).as_deref().and_then(ApiCaller::read),
            content_type: value("Content-Type"),
            authorization: value("Authorization"),
            from_a_page: value(FROM_A_PAGE).is_some(),
            is_whole: body.len() == length,
            body,
        })
    }

    /// Sends the answer. Whether the Controller is still there to read it is not our business.
    pub fn respond(mut self, answer: &Answer) {
        let body = if self.method == "HEAD" { "" } else { &answer.body };
        if let Err(error) = self.stream.write_all((head(answer) + body).as_bytes()) {
            debug!("an API answer could not be delivered: {error}");
        }
    }
}

fn content_length(head: &[u8]) -> io::Result<usize> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(Status::Complete(_)) => {}
        other => return Err(io::Error::other(format!("{other:?}"))),
    }
    Ok(value_of(parsed.headers, "Content-Length").and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

fn value_of<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok()
}

/// Status line and headers. The loop closes the Controller's connection or not, and says so itself.
fn head(answer: &Answer) -> String {
    let Answer { status, content_type, header, body, .. } = answer;
    let more = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} {}\r\nDate: {}\r\nContent-Type: {content_type}\r\nServer: iofog-connector\r\n{more}\
         Content-Length: {}\r\n\r\n",
        phrase(*status),
        clock::http_date(),
        body.len()
    )
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}
