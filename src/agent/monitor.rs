//! `metricslisten`: `/metrics` and `/healthz` for everybody who can connect, and nothing else.
//!
//! A thread of its own asks the loop and answers, one caller after the other: one that is slow keeps the next one waiting
//! for [`AGENT_REQUEST_TIME`], and the loop not at all.

use super::error::StartError;
use super::metrics;
use super::status::{Question, Report};
use crate::clock;
use crate::failure;
use crate::limits::{AGENT_REQUEST_TIME, HEALTHY, SMALL_READ};
use crate::prometheus::CONTENT_TYPE;
use httparse::{EMPTY_HEADER, Request, Status};
use log::warn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Header lines of a request; more are malformed.
const HEADERS: usize = 100;

/// Status, content type and body.
type Answer = (&'static str, &'static str, String);

/// Answers at `address` until the agent is gone.
pub(super) fn listen(address: SocketAddr, question: Question) -> Result<(), StartError> {
    let listener = bind(address)?;
    let started = clock::now();
    let work = move || {
        for stream in listener.incoming() {
            match stream {
                // A caller that is gone is nobody's concern.
                Ok(stream) => drop(serve(stream, &question, started)),
                Err(e) => {
                    warn!("{address} (`metricslisten`): accept failed, retried in one second: {e}");
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    };
    let spawned = thread::Builder::new().name("metrics".into()).spawn(work);
    spawned.map(|_| ()).map_err(|cause| StartError::Metrics { address, cause })
}

pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|cause| StartError::Metrics { address, cause })
}

fn serve(mut stream: TcpStream, question: &Question, started: SystemTime) -> io::Result<()> {
    let until = Instant::now() + AGENT_REQUEST_TIME;
    let mut head = Vec::new();
    let (status, kind, body) = loop {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut request = Request::new(&mut headers);
        match request.parse(&head) {
            Ok(Status::Complete(_)) => {
                break answer(request.method.unwrap_or_default(), request.path.unwrap_or_default(), question, started);
            }
            Ok(Status::Partial) if head.len() < SMALL_READ => {}
            _ => break refusal("400 Bad Request", "this is no HTTP request, or too long a one"),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&piece[..count]),
        }
    };
    stream.set_write_timeout(Some(AGENT_REQUEST_TIME))?;
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes())
}

fn answer(method: &str, path: &str, question: &Question, started: SystemTime) -> Answer {
    if !["/metrics", "/healthz"].contains(&path) {
        return refusal("404 Not Found", "there are /metrics and /healthz");
    }
    if method != "GET" {
        return refusal("405 Method Not Allowed", "expected GET");
    }
    match question.ask(HEALTHY) {
        Ok(report) if path == "/metrics" => ("200 OK", CONTENT_TYPE, metrics::text(&report, started)),
        Ok(Report { timestamp, .. }) => ("200 OK", JSON, format!("{{\"status\":\"ok\",\"timestamp\":{timestamp}}}")),
        Err(_) => refusal("503 Service Unavailable", "the event loop has not turned for a second"),
    }
}

const JSON: &str = "application/json";

fn refusal(status: &'static str, reason: &str) -> Answer {
    (status, JSON, failure::body(&status[4..], reason))
}
