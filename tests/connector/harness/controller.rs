//! A Controller: HTTP/1.1 by hand, so that it can also misbehave.

use super::{Dial, Heard, PATIENCE, Peer};
use serde_json::Value;
use std::io;
use std::time::Duration;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Who calls the control API.
#[derive(Clone)]
pub struct Controller {
    pub dial: Dial,
}

impl Controller {
    /// One request on a connection of its own, whose body is `form`.
    #[track_caller]
    pub fn post(&self, path: &str, form: &str) -> Answer {
        self.try_post(path, form).expect("an answer")
    }

    /// Like [`Controller::post`], for a daemon that may not be there.
    pub fn try_post(&self, path: &str, form: &str) -> io::Result<Answer> {
        let mut connection = self.connect()?;
        connection.send(&post(path, form))?;
        connection.answer_within(PATIENCE)
    }

    pub fn connect(&self) -> io::Result<ApiConnection> {
        Ok(ApiConnection { peer: self.dial.connect()?, heard: Vec::new() })
    }
}

/// A POST of a form, as Controllers send it.
pub fn post(path: &str, form: &str) -> String {
    request("POST", path, &["Content-Type: application/x-www-form-urlencoded"], form)
}

/// A whole request.
pub fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: connector\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A form of one field, percent-encoded.
pub fn form(key: &str, value: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair(key, value).finish()
}

/// A connection to the API that is kept alive.
pub struct ApiConnection {
    pub peer: Peer,
    heard: Vec<u8>,
}

impl ApiConnection {
    pub fn send(&self, bytes: &str) -> io::Result<()> {
        match self.peer.try_send(bytes.as_bytes(), PATIENCE)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A request and its answer.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &str) -> Answer {
        self.send(bytes).expect("a connection that can be written to");
        self.answer_within(PATIENCE).expect("an answer")
    }

    /// The next answer's status and headers.
    pub fn head_within(&mut self, patience: Duration) -> io::Result<Answer> {
        let head = loop {
            if let Some(end) = self.heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break self.take(end + 4);
            }
            self.hear(patience)?;
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {head:?}")))?;
        Ok(Answer { status, head, body: String::new() })
    }

    /// The next answer.
    pub fn answer_within(&mut self, patience: Duration) -> io::Result<Answer> {
        let mut answer = self.head_within(patience)?;
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let length = length.ok_or_else(|| io::Error::other(format!("no Content-Length: {:?}", answer.head)))?;
        while self.heard.len() < length {
            self.hear(patience)?;
        }
        answer.body = self.take(length);
        Ok(answer)
    }

    fn take(&mut self, length: usize) -> String {
        String::from_utf8_lossy(&self.heard.drain(..length).collect::<Vec<_>>()).into_owned()
    }

    fn hear(&mut self, patience: Duration) -> io::Result<()> {
        match self.peer.hear(patience) {
            Heard::Message(bytes) => self.heard.extend(bytes),
            Heard::Ended(end) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{end:?}"))),
            Heard::Silence => return Err(io::ErrorKind::TimedOut.into()),
        }
        Ok(())
    }
}
