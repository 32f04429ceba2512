//! Requests as the event loop hands them over: whole, written anew by it
//! ([`relay::api::request`](crate::relay::api::request)), each on a connection of its own to a private socket. tiny_http
//! parses them and writes the answers.
//!
//! A lack of descriptors or threads ends nothing: it ends tiny_http's acceptor, by an error or by a panic
//! ([`crate::crash`]), which is set up again as soon as there are some. What was not taken waits in the socket's queue.

use super::answer::Answer;
use crate::clock;
use crate::crash;
use crate::relay::api::caller::{self, ApiCaller};
use crate::relay::api::request::FROM_A_PAGE;
use log::{debug, warn};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tiny_http::{Header, Response, Server};

/// What failed for want of descriptors or threads is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// tiny_http's destructor connects to the socket's path and then removes it, and panics if there is no
/// path. None of it suits a listener that is given to us, so it never runs.
type PrivateServer = Arc<ManuallyDrop<Server>>;

/// Where requests come from.
pub(super) struct Requests {
    listener: UnixListener,
    /// `None`: its acceptor has ended.
    server: Option<PrivateServer>,
}

impl Requests {
    /// Those that come to `listener`.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        let server = Some(serve(&listener)?);
        Ok(Self { listener, server })
    }

    /// The next one, if it comes within `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<Request> {
        if crash::acceptor_has_ended() {
            self.server = None;
        }
        let taken = match &self.server {
            Some(server) => server.recv_timeout(patience),
            None => serve(&self.listener).map(|server| {
                self.server = Some(server);
                None
            }),
        };
        match taken {
            Ok(request) => request.map(Request::read),
            Err(error) => {
                if self.server.take().is_some() {
                    warn!("No API requests can be taken for the moment: {error}");
                }
                thread::sleep(AGAIN);
                None
            }
        }
    }

    /// The next one, if it is there.
    pub fn take(&self) -> Option<Request> {
        self.server.as_ref()?.try_recv().ok().flatten().map(Request::read)
    }
}

fn serve(listener: &UnixListener) -> io::Result<PrivateServer> {
    let listener = listener.try_clone()?;
    // It panics if it gets no thread.
    let server = crash::contain("the API", || Server::from_listener(listener, None));
    let server = server.map_err(|_| io::Error::other("no thread"))?.map_err(io::Error::other)?;
    let server = Arc::new(ManuallyDrop::new(server));
    let waiting = Arc::downgrade(&server);
    crash::when_acceptor_ends(move || waiting.upgrade().iter().for_each(|server| server.unblock()));
    Ok(server)
}

/// A request, and the way back for its answer.
pub(super) struct Request {
    request: tiny_http::Request,
    /// As long as its Content-Length, which the loop has bounded; or what came of it.
    pub body: io::Result<Vec<u8>>,
}

impl Request {
    fn read(mut request: tiny_http::Request) -> Self {
        let mut body = Vec::new();
        let read = request.as_reader().read_to_end(&mut body);
        // tiny_http takes the end of the connection for the end of the body.
        let is_whole = request.body_length().is_none_or(|length| length == body.len());
        let body = read.and(if is_whole { Ok(body) } else { Err(io::Error::other("it ends too early")) });
        Self { request, body }
    }

    pub fn method(&self) -> &str {
        self.request.method().as_str()
    }

    pub fn target(&self) -> &str {
        self.request.url()
    }

    /// What the loop knows of who sent it.
    pub fn caller(&self) -> Option<ApiCaller> {
        self.header(caller::HEADER).and_then(ApiCaller::read)
    }

    pub fn is_from_a_page(&self) -> bool {
        self.header(FROM_A_PAGE).is_some()
    }

    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    /// Sends the answer. Whether the Controller is still there to read it is not our business.
    pub fn respond(self, answer: &Answer) {
        // Left to itself, tiny_http asks the standard library for the time: see `clock`.
        let date = clock::http_date();
        let fixed = [("Date", &*date), ("Content-Type", answer.content_type), ("Server", "iofog-connector")];
        let headers = fixed.into_iter().chain(answer.header);
        let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok()).collect();
        let length = answer.body.len();
        let response = Response::new(answer.status.into(), headers, answer.body.as_bytes(), Some(length), None);
        if let Err(error) = self.request.respond(response.with_chunked_threshold(usize::MAX)) {
            debug!("an API answer could not be delivered: {error}");
        }
    }
}
