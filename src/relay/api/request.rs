//! HTTP framing of the control API, in front of tiny_http: bytes of one connection in, whole requests out.
//!
//! Pure: knows no socket and no clock. tiny_http reads header lines without end, believes several
//! framings that others read differently, and holds a thread for every request that does not end. So
//! it never sees what a stranger wrote: a request is collected here within its limits, understood, and
//! written anew from the few parts that the API looks at, with its length and its real caller (see
//! [`super::caller`]). What is not understood is refused.
//!
//! Each rewritten request says `Connection: close`, because it is made for a private connection of
//! its own, whatever the client's connection goes on to do. Where its answer ends is then plain, and
//! no answer waits behind another's. It is also the only way to be served for sure: of many connections
//! that come at once, tiny_http queues most behind the first few for as long as those stay open.

mod chunked;
mod head;

pub use head::FROM_A_PAGE;

use super::caller::ApiCaller;
use super::refusal::{Refusal, Status};
use crate::limits::{REQUEST_BODY, REQUEST_HEAD};
use chunked::Decoder;
use head::{Framing, Head};

/// What has come of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    Incomplete,
    /// The client waits for an interim `100 Continue` before it sends the body. Said once a request.
    Continue,
    /// A whole request for tiny_http. After its answer the client's connection is closed if `last`.
    Request { bytes: Vec<u8>, last: bool },
    /// The request is answered by this, then the connection is closed.
    Refuse(Refusal),
}

/// Collects the requests of one connection, one after the other.
///
/// The owner calls [`push`](Self::push) with what it has read, then [`next`](Self::next), and reads again only
/// when that says `Incomplete` or `Continue`: then never more is held than one request's limits and one read.
#[derive(Debug, Default)]
pub struct Collector {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Before the end of a head; so many of its bytes have been looked at.
    Head { seen: usize },
    /// Behind a head. `decoder`: of a body in chunks.
    Body { head: Head, decoder: Decoder },
    /// The last request has been given out or refused. Whatever else comes is ignored.
    Over,
}

impl Default for State {
    fn default() -> Self {
        Self::Head { seen: 0 }
    }
}

impl Collector {
    /// Takes what the client has sent.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Over) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Whether nothing of a request has come yet: the time for a request runs from its first byte.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && matches!(self.state, State::Head { .. })
    }

    /// The next thing to do, for a connection from `caller`.
    pub fn next(&mut self, caller: &ApiCaller) -> Step {
        match self.advance(caller) {
            Ok(step) => step,
            Err(refusal) => {
                self.end();
                Step::Refuse(refusal)
            }
        }
    }

    fn advance(&mut self, caller: &ApiCaller) -> Result<Step, Refusal> {
        if let State::Head { seen } = self.state {
            let Some(head) = self.take_head(seen)? else { return Ok(Step::Incomplete) };
            self.state = State::Body { head, decoder: Decoder::default() };
        }
        let State::Body { head, decoder } = &mut self.state else { return Ok(Step::Incomplete) };
        let body = match head.framing {
            Framing::Sized(length) => (self.bytes.len() >= length).then(|| self.bytes.drain(..length).collect()),
            Framing::Chunked => {
                let used = decoder.decode(&self.bytes)?;
                self.bytes.drain(..used);
                decoder.take_body()
            }
        };
        let Some(body) = body else {
            let waits = std::mem::take(&mut head.waits);
            return Ok(if waits { Step::Continue } else { Step::Incomplete });
        };
        let (bytes, last) = (head.rewrite(&body, caller), head.last);
        if last {
            self.end();
        } else {
            self.state = State::default();
            // A connection that is kept alive holds no room for the largest request that it has sent.
            self.bytes.shrink_to_fit();
        }
        Ok(Step::Request { bytes, last })
    }

    /// Finds the end of the head, takes it out of the buffer and understands it.
    fn take_head(&mut self, seen: usize) -> Result<Option<Head>, Refusal> {
        // Empty lines before a request are old clients' habit and mean nothing.
        let blank = self.bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        self.bytes.drain(..blank);
        let end = head::find_end(&self.bytes, seen.saturating_sub(blank))?;
        let size = end.unwrap_or(self.bytes.len());
        if size > REQUEST_HEAD {
            let limit = format!("longer than {REQUEST_HEAD} bytes");
            return Err(match self.bytes[..REQUEST_HEAD].contains(&b'\n') {
                true => Refusal::new(Status::HEAD_TOO_LARGE, format!("request line and headers are {limit}")),
                false => Refusal::new(Status::TARGET_TOO_LONG, format!("the request line is {limit}")),
            });
        }
        let Some(end) = end else {
            self.state = State::Head { seen: self.bytes.len() };
            return Ok(None);
        };
        let head = head::parse(&self.bytes[..end])?;
        self.bytes.drain(..end);
        Ok(Some(head))
    }

    /// How many bytes are held.
    #[cfg(any(test, fuzzing))]
    pub fn held(&self) -> usize {
        self.bytes.len() + if let State::Body { decoder, .. } = &self.state { decoder.held() } else { 0 }
    }

    fn end(&mut self) {
        self.bytes = Vec::new();
        self.state = State::Over;
    }
}

/// A body that is longer than the API takes.
fn body_too_large() -> Refusal {
    Refusal::new(Status::BODY_TOO_LARGE, format!("the body is longer than {REQUEST_BODY} bytes"))
}

fn malformed(reason: impl Into<String>) -> Refusal {
    Refusal::new(Status::MALFORMED, reason)
}

#[cfg(test)]
mod tests;
