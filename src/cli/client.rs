//! A small HTTP client for the daemon's own API: one request a connection, over TCP or TLS.
//!
//! Over TLS it trusts the certificate of the settings and nothing else, whatever name stands in it, and where
//! Controllers have to show a certificate it shows the same one. It sends the token of the settings.

use super::Failure;
use crate::config::Config;
use crate::control::{TokenError, read_token};
use crate::exit;
use crate::json;
use crate::net::certificate::{self, CertificateError};
use crate::net::trust::{self, Trust};
use crate::secret::Secret;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take, to whichever address, and then an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer's head and body, bytes.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// Headers of an answer.
const HEADERS: usize = 32;
/// Nobody looks at the name: it is the certificate itself that counts.
const ANY_NAME: &str = "connector.invalid";

/// What a Connector's answer has: a key, and how its value looks.
#[derive(Clone, Copy)]
pub(super) struct Expected(pub &'static str, pub fn(&Value) -> bool);

/// The answer about the whole daemon.
pub(super) const ABOUT_ALL: Expected = Expected("status", Value::is_string);
/// The answer to a command of another command line.
pub(super) const RESPONSE: Expected = Expected("response", Value::is_string);
/// Every answer that says no has this.
const REASON: Expected = Expected("errormessage", Value::is_string);

/// The way to a daemon.
pub(super) struct Client {
    address: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Secret>,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{file} and its key: {problem}")]
    Identity { file: PathBuf, problem: String },
    #[error(
        "{url} does not answer: {cause}. Does the daemon run? If so, check `address` and `apiport` in the settings"
    )]
    Unreachable { url: String, cause: io::Error },
    #[error(
        "{url} has another certificate than the server-cert.pem of these settings. If that was renewed, reload the \
         daemon (SIGHUP)"
    )]
    AnotherCertificate { url: String },
    #[error("{url} is not a Connector's API: {problem}")]
    NotUnderstood { url: String, problem: String },
    #[error("the daemon refused the request: {reason} (HTTP status {status})")]
    Refused { status: u16, reason: String },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match error {
            ClientError::Token(ref e) if e.is_forbidden() => exit::NOT_PERMITTED,
            ClientError::Token(_) | ClientError::Certificate(_) | ClientError::Identity { .. } => exit::CONFIG,
            ClientError::Refused { status: 401 | 403, .. } => exit::NOT_PERMITTED,
            ClientError::Refused { .. } => exit::REFUSED,
            _ => exit::UNAVAILABLE,
        };
        Self::new(status, error)
    }
}

impl Client {
    /// The way to the daemon of these settings. Reads certificates and token.
    pub fn of(config: &Config) -> Result<Self, ClientError> {
        let token = config.api_token.as_deref().map(read_token).transpose()?;
        let tls = if config.dev { None } else { Some(trusting(config)?) };
        Ok(Self { address: config.address.clone(), port: config.api_port, tls, token })
    }

    /// Where the API is.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.host())
    }

    fn host(&self) -> String {
        let Self { address, port, .. } = self;
        // An IPv6 address needs its brackets.
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// The same host and certificate at another port: what a user of a mapping connects to.
    pub fn at_port(self, port: u16) -> Self {
        Self { port, token: None, ..self }
    }

    /// Fetches a page.
    pub fn get(&self, path: &str) -> Result<String, ClientError> {
        match self.exchange("GET", path, "")? {
            (200, body) => Ok(String::from_utf8_lossy(&body).into_owned()),
            (status, _) => Err(ClientError::Refused { status, reason: format!("GET {path}") }),
        }
    }

    /// Sends a form and returns the JSON of a successful answer, in which a Connector has what is `expected`: whatever
    /// else listens there says something else.
    pub fn post(&self, path: &str, fields: &[(&str, &str)], expected: Expected) -> Result<Value, ClientError> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let (status, body) = self.exchange("POST", path, &form)?;
        let json: Value = serde_json::from_slice(&body).map_err(|e| self.not_understood(json::explained(&e)))?;
        let Expected(key, is_right) = if status == 200 { expected } else { REASON };
        if !is_right(&json[key]) {
            return Err(self.not_understood(format!("its answer (HTTP status {status}) has no {key:?}")));
        }
        if status == 200 {
            return Ok(json);
        }
        Err(ClientError::Refused { status, reason: json[key].as_str().unwrap_or_default().to_owned() })
    }

    /// Sends a request; returns status and body of the answer.
    fn exchange(&self, method: &str, path: &str, form: &str) -> Result<(u16, Vec<u8>), ClientError> {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n{}\
             Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
            self.host(),
            token.unwrap_or_default(),
            form.len()
        );
        let answer = self.transfer(&request).map_err(|cause| self.unreachable(cause))?;
        let whole = parse(&answer).map_err(|problem| self.not_understood(problem))?;
        let (status, body) = whole.ok_or_else(|| self.not_understood("its answer is incomplete"))?;
        Ok((status, body.to_vec()))
    }

    fn transfer(&self, request: &str) -> io::Result<Vec<u8>> {
        let stream = Bounded { stream: self.connect()?, deadline: Instant::now() + TIMEOUT };
        let Some(tls) = &self.tls else { return converse(stream, request) };
        let name = ServerName::try_from(ANY_NAME).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        converse(StreamOwned::new(connection, stream), request)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("the name has no address");
        let addresses = (self.address.as_str(), self.port).to_socket_addrs()?;
        let deadline = Instant::now() + TIMEOUT;
        for address in addresses {
            match TcpStream::connect_timeout(&address, left_until(deadline)?) {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn not_understood(&self, problem: impl ToString) -> ClientError {
        ClientError::NotUnderstood { url: self.url(), problem: problem.to_string() }
    }

    fn unreachable(&self, cause: io::Error) -> ClientError {
        let url = self.url();
        let tls = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if tls.is_some_and(trust::is_unknown_certificate) {
            return ClientError::AnotherCertificate { url };
        }
        let cause = match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                io::Error::new(ErrorKind::TimedOut, format!("nothing within {} s", TIMEOUT.as_secs()))
            }
            _ => cause,
        };
        ClientError::Unreachable { url, cause }
    }
}

/// TLS that trusts the daemon's certificate, and shows one of its own if there is one.
fn trusting(config: &Config) -> Result<Arc<ClientConfig>, ClientError> {
    let folder = certificate::folder(config);
    let (file, chain) = certificate::chain(folder)?;
    let Some(certificate) = chain.first().cloned() else {
        return Err(CertificateError::Empty { file, hint: "" }.into());
    };
    // The daemon takes its own certificate for a Controller's.
    let identity = match config.controller_ca {
        Some(_) => Some((chain, certificate::key(folder)?)),
        None => None,
    };
    trust::client_config(&Trust::Only(certificate), identity)
        .map_err(|e| ClientError::Identity { file, problem: e.to_string() })
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
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Sends the request and reads the answer: the whole of it, if it is one.
fn converse(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while matches!(parse(&answer), Ok(None)) {
        if answer.len() > LARGEST_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(answer)
}

/// Status and body of an answer; `None` while it is not all there.
pub(crate) fn parse(answer: &[u8]) -> Result<Option<(u16, &[u8])>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(answer).map_err(|e| e.to_string())? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let length: usize = length.filter(|length| *length <= LARGEST_ANSWER).ok_or("no Content-Length in its answer")?;
    Ok(answer.get(start..start + length).map(|body| (head.code.unwrap_or_default(), body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert_eq!(parse(&answer[..end]), Ok(None), "{end} bytes were taken for the whole");
        }
        assert_eq!(parse(answer), Ok(Some((200, &b"{}"[..]))));
    }

    #[test]
    fn what_is_no_http_is_said_so() {
        for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\x15\x03\x03"] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer:?} was taken");
        }
    }
}
