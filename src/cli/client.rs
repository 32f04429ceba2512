//! A small HTTP client for the daemon's own API: one request a connection, over TCP or TLS.
//!
//! Over TLS it trusts the certificate of the settings and nothing else, whatever name stands in it, and where
//! Controllers have to show a certificate it shows the same one. It sends the token of the settings.

use crate::config::Config;
use crate::control::read_token;
use crate::exit;
use crate::net::certificate::{self, CertificateError};
use crate::net::trust::{self, Trust};
use crate::secret::Secret;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take, to whichever address, and then an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer's head and body, bytes.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// Headers of an answer.
const HEADERS: usize = 32;
/// Nobody looks at the name: it is the certificate itself that counts.
const ANY_NAME: &str = "connector.invalid";

/// The way to a daemon.
pub(super) struct Client {
    address: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Secret>,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug)]
pub(super) enum ClientError {
    /// A file that the client needs; says which.
    File(String),
    Certificate(CertificateError),
    Unreachable {
        url: String,
        cause: io::Error,
    },
    /// The daemon, or whoever answers there, does not have the certificate of the file.
    AnotherCertificate {
        url: String,
    },
    /// What came back is not an answer of the API.
    NotUnderstood {
        url: String,
        problem: String,
    },
    /// The daemon has answered, and said no.
    Refused {
        status: u16,
        reason: String,
    },
}

impl ClientError {
    /// The exit status of a command that only asked the daemon.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::File(_) | Self::Certificate(_) => exit::CONFIG,
            Self::Refused { status: 401 | 403, .. } => exit::NOT_PERMITTED,
            Self::Refused { .. } => exit::REFUSED,
            _ => exit::UNAVAILABLE,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(problem) => f.write_str(problem),
            Self::Certificate(e) => e.fmt(f),
            Self::Unreachable { url, cause } => {
                write!(f, "{url} does not answer: {cause}. It is where `address` and `apiport` of the settings point")
            }
            Self::AnotherCertificate { url } => write!(
                f,
                "{url} has another certificate than the server-cert.pem of these settings. If that was renewed, reload \
                 the daemon (SIGHUP)"
            ),
            Self::NotUnderstood { url, problem } => write!(f, "{url} does not answer as a Connector does: {problem}"),
            Self::Refused { status, reason } => write!(f, "the daemon refuses: {reason} (HTTP status {status})"),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// The way to the daemon of these settings. Reads certificates and token.
    pub fn of(config: &Config) -> Result<Self, ClientError> {
        let token = config.api_token.as_deref().map(read_token).transpose();
        let token = token.map_err(|e| ClientError::File(e.to_string()))?;
        let tls = if config.dev { None } else { Some(trusting(config)?) };
        Ok(Self { address: config.address.clone(), port: config.api_port, tls, token })
    }

    /// Where the API is.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.host())
    }

    fn host(&self) -> String {
        // An IPv6 address needs its brackets.
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }

    /// The same host and certificate at another port: what a user of a mapping connects to.
    pub fn at_port(self, port: u16) -> Self {
        Self { port, token: None, ..self }
    }

    /// Fetches a page.
    pub fn get(&self, path: &str) -> Result<String, ClientError> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host());
        let answer = self.exchange(&request).map_err(|cause| self.failed(cause))?;
        match split(&answer) {
            Ok((200, body)) => Ok(String::from_utf8_lossy(body).into_owned()),
            Ok((status, _)) => Err(ClientError::Refused { status, reason: format!("GET {path}") }),
            Err(problem) => Err(ClientError::NotUnderstood { url: self.url(), problem }),
        }
    }

    /// Sends a form and returns the JSON of a successful answer.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value, ClientError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let answer = self.exchange(&self.request(path, &body)).map_err(|cause| self.failed(cause))?;
        let not_understood = |problem: String| ClientError::NotUnderstood { url: self.url(), problem };
        let (status, body) = split(&answer).map_err(not_understood)?;
        let json: Value = serde_json::from_slice(body).map_err(|e| not_understood(e.to_string()))?;
        if status == 200 {
            return Ok(json);
        }
        let reason = json["errormessage"].as_str().unwrap_or("no reason given").to_owned();
        Err(ClientError::Refused { status, reason })
    }

    fn request(&self, path: &str, body: &str) -> String {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n{}\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host(),
            token.unwrap_or_default(),
            body.len()
        )
    }

    fn exchange(&self, request: &str) -> io::Result<Vec<u8>> {
        let stream = Bounded { stream: self.connect()?, deadline: Instant::now() + PATIENCE };
        let Some(tls) = &self.tls else { return converse(stream, request) };
        let name = ServerName::try_from(ANY_NAME).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        converse(StreamOwned::new(connection, stream), request)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("the name has no address");
        let addresses = (self.address.as_str(), self.port).to_socket_addrs()?;
        let deadline = Instant::now() + PATIENCE;
        for address in addresses {
            match TcpStream::connect_timeout(&address, left_until(deadline)?) {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn failed(&self, cause: io::Error) -> ClientError {
        let tls = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(e) if trust::is_unknown_certificate(e) => ClientError::AnotherCertificate { url: self.url() },
            _ if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let cause = io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {} s", PATIENCE.as_secs()));
                ClientError::Unreachable { url: self.url(), cause }
            }
            _ => ClientError::Unreachable { url: self.url(), cause },
        }
    }
}

/// TLS that trusts the daemon's certificate, and shows one of its own if there is one.
fn trusting(config: &Config) -> Result<Arc<ClientConfig>, ClientError> {
    let folder = certificate::folder(config);
    let (file, chain) = certificate::chain(folder).map_err(ClientError::Certificate)?;
    let [certificate, ..] = &chain[..] else {
        return Err(ClientError::Certificate(CertificateError::Empty { file }));
    };
    // The daemon takes its own certificate for a Controller's.
    let identity = match config.controller_ca {
        Some(_) => Some((chain.clone(), certificate::key(folder).map_err(ClientError::Certificate)?)),
        None => None,
    };
    trust::client_config(&Trust::Only(certificate.clone()), identity)
        .map_err(|e| ClientError::File(format!("{} and its key: {e}", file.display())))
}

/// A connection that ends at a deadline, however busy it is: whoever answers may do so byte by byte, and TLS waits for
/// whole records.
struct Bounded {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left_until(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left_until(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Never nothing, which would mean for ever.
fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Sends the request and reads the whole answer.
fn converse(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while !is_whole(&answer) {
        if answer.len() > LARGEST_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(answer)
}

pub(crate) fn is_whole(answer: &[u8]) -> bool {
    matches!(parse(answer), Ok(Some((_, start, length))) if answer.len() >= start + length)
}

/// Status and body of a whole answer.
pub(crate) fn split(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let (status, start, length) = parse(answer)?.ok_or("its answer breaks off")?;
    let body = answer.get(start..start + length).ok_or("its answer breaks off")?;
    Ok((status, body))
}

/// Status, where the body starts, and its length; `None` while the head is not all there.
fn parse(answer: &[u8]) -> Result<Option<(u16, usize, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(answer).map_err(|e| e.to_string())? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let length = length.filter(|length| *length <= LARGEST_ANSWER).ok_or("no Content-Length in its answer")?;
    Ok(Some((head.code.unwrap_or_default(), start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert!(!is_whole(&answer[..end]), "{end} bytes were taken for the whole");
            assert!(split(&answer[..end]).is_err());
        }
        assert!(is_whole(answer));
        assert_eq!(split(answer), Ok((200, &b"{}"[..])));
    }

    #[test]
    fn what_is_no_http_is_said_so() {
        for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\x15\x03\x03"] {
            assert!(split(answer.as_bytes()).is_err(), "{answer:?} was taken");
        }
    }
}
