//! rustls behind "take this record" and "seal this message".
//!
//! Works on memory only: who owns the socket feeds one whole record at a time and sends what comes out.
//! One record at a time, because the agents' protocol lives on record boundaries (docs/protocol.md, section 4)
//! and because what lies behind the handshake must stay unread until somebody wants it.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use std::fmt;

/// Bytes of a record's header: type, version, length (RFC 8446, section 5.1).
const HEADER: usize = 5;
/// What encryption may add to a message of a record, in TLS 1.2 (RFC 5246, section 6.2.3).
const EXPANSION: usize = 2048;
/// Bytes of payload in one record at most (RFC 8446, section 5.1).
pub const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a sealed record at most, header included, as we make it.
pub const MAX_SEALED: usize = MAX_MESSAGE + 256;
/// A handshake message that comes in pieces is kept up to this size. Bytes.
const MAX_CARRY: usize = 64 * 1024;

/// One TLS connection, either end of it.
pub struct Tls {
    end: End,
    /// Records of a handshake message that is not complete yet. Empty, without memory, almost always.
    carry: Vec<u8>,
    closed: bool,
}

enum End {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What the peer sent is not TLS, or breaks its rules.
#[derive(Debug)]
pub enum Broken {
    /// The first bytes are no record header.
    NotTls,
    Tls(rustls::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("the peer does not speak TLS"),
            Self::Tls(e) => e.fmt(f),
        }
    }
}

impl From<rustls::Error> for Broken {
    fn from(e: rustls::Error) -> Self {
        Self::Tls(e)
    }
}

/// Length of the record that `bytes` begin with, header included; `None` if it is not all there yet.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    // Types 20 to 23: change_cipher_spec, alert, handshake, application_data.
    let plausible = bytes.first().is_none_or(|kind| (20..=23).contains(kind)) && bytes.get(1).is_none_or(|&v| v == 3);
    if !plausible {
        return Err(Broken::NotTls);
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body > MAX_MESSAGE + EXPANSION {
        return Err(Broken::NotTls);
    }
    Ok((bytes.len() >= HEADER + body).then_some(HEADER + body))
}

impl Tls {
    /// The accepting end.
    pub fn server(connection: UnbufferedServerConnection) -> Self {
        Self { end: End::Server(Box::new(connection)), carry: Vec::new(), closed: false }
    }

    /// The dialling end. [`Tls::begin`] makes its first flight.
    pub fn client(connection: UnbufferedClientConnection) -> Self {
        Self { end: End::Client(Box::new(connection)), carry: Vec::new(), closed: false }
    }

    /// Before the handshake is done nothing can be sealed and no message comes out.
    pub fn is_handshaking(&self) -> bool {
        match &self.end {
            End::Server(connection) => connection.is_handshaking(),
            End::Client(connection) => connection.is_handshaking(),
        }
    }

    /// The peer has sent its close_notify: no message will come any more.
    pub fn peer_has_closed(&self) -> bool {
        self.closed
    }

    /// Puts what the dialling end says first into `reply`.
    pub fn begin(&mut self, reply: &mut Vec<u8>) -> Result<(), Broken> {
        self.turn(&mut [], reply, |_| ())?;
        Ok(())
    }

    /// Takes one whole record. Messages go to `message`, answers of the handshake (and alerts) into `reply`.
    ///
    /// After an error `reply` may hold the alert that tells the peer.
    pub fn take_record(
        &mut self,
        record: &mut [u8],
        reply: &mut Vec<u8>,
        message: impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        if self.carry.is_empty() {
            let used = self.turn(record, reply, message)?;
            self.carry.extend_from_slice(&record[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(record);
            let used = self.turn(&mut whole, reply, message)?;
            whole.drain(..used);
            whole.shrink_to_fit();
            self.carry = whole;
        }
        if self.carry.len() > MAX_CARRY { Err(Broken::NotTls) } else { Ok(()) }
    }

    fn turn(
        &mut self,
        input: &mut [u8],
        reply: &mut Vec<u8>,
        message: impl FnMut(&[u8]),
    ) -> Result<usize, rustls::Error> {
        let result = match &mut self.end {
            End::Server(c) => crank(
                c,
                UnbufferedConnectionCommon::<ServerConnectionData>::process_tls_records,
                input,
                reply,
                &mut self.closed,
                message,
            ),
            End::Client(c) => crank(
                c,
                UnbufferedConnectionCommon::<ClientConnectionData>::process_tls_records,
                input,
                reply,
                &mut self.closed,
                message,
            ),
        };
        if result.is_err() {
            // What rustls has to say about it comes out at the next call; a second error is the same one.
            let _ = match &mut self.end {
                End::Server(c) => alert(c.process_tls_records(&mut []), reply),
                End::Client(c) => alert(c.process_tls_records(&mut []), reply),
            };
        }
        result
    }

    /// Seals `message` (at most [`MAX_MESSAGE`] bytes) as one record into `out` (at least [`MAX_SEALED`] bytes).
    pub fn seal(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, Broken> {
        debug_assert!(message.len() <= MAX_MESSAGE);
        let sealed = match &mut self.end {
            End::Server(c) => seal(c.process_tls_records(&mut self.carry), message, out),
            End::Client(c) => seal(c.process_tls_records(&mut self.carry), message, out),
        };
        sealed.map_err(Broken::Tls)
    }

    /// Puts close_notify into `reply`. Nothing can be sealed afterwards.
    pub fn close(&mut self, reply: &mut Vec<u8>) {
        match &mut self.end {
            End::Server(c) => close(c.process_tls_records(&mut self.carry), reply),
            End::Client(c) => close(c.process_tls_records(&mut self.carry), reply),
        }
    }
}

/// Lets rustls work through `input` until it wants more. Returns how much of it is used up.
fn crank<D>(
    connection: &mut UnbufferedConnectionCommon<D>,
    process: for<'c, 'i> fn(&'c mut UnbufferedConnectionCommon<D>, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, D>,
    input: &mut [u8],
    reply: &mut Vec<u8>,
    closed: &mut bool,
    mut message: impl FnMut(&[u8]),
) -> Result<usize, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { discard, state } = process(connection, &mut input[used..]);
        used += discard;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    used += record.discard;
                    message(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => put(reply, |room| data.encode(room))?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => *closed = true,
            ConnectionState::ReadEarlyData(_) => return Err(rustls::Error::General("early data is off".into())),
            _ => return Ok(used),
        }
    }
}

fn alert<D>(status: UnbufferedStatus<'_, '_, D>, reply: &mut Vec<u8>) -> Result<(), rustls::Error> {
    match status.state? {
        ConnectionState::EncodeTlsData(mut data) => put(reply, |room| data.encode(room)),
        _ => Ok(()),
    }
}

fn seal<D>(status: UnbufferedStatus<'_, '_, D>, message: &[u8], out: &mut [u8]) -> Result<usize, rustls::Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            traffic.encrypt(message, out).map_err(|e| rustls::Error::General(e.to_string()))
        }
        _ => Err(rustls::Error::HandshakeNotComplete),
    }
}

fn close<D>(status: UnbufferedStatus<'_, '_, D>, reply: &mut Vec<u8>) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        // Failing to say goodbye changes nothing: the FIN follows.
        let _ = put(reply, |room| traffic.queue_close_notify(room));
    }
}

/// Appends what `write` makes, giving it as much room as it asks for.
fn put<E: TooSmall>(
    reply: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), rustls::Error> {
    let start = reply.len();
    let mut room = 256;
    loop {
        reply.resize(start + room, 0);
        match write(&mut reply[start..]) {
            Ok(count) => {
                reply.truncate(start + count);
                return Ok(());
            }
            Err(e) => match e.wanted() {
                Some(size) if size > room => room = size,
                _ => {
                    reply.truncate(start);
                    return Err(rustls::Error::General("no TLS record could be written".into()));
                }
            },
        }
    }
}

/// The two errors of rustls that say how much room was wanted.
trait TooSmall {
    fn wanted(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn wanted(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn wanted(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_measured_by_its_header() {
        assert_eq!(record_len(&[]).unwrap(), None);
        assert_eq!(record_len(&[22, 3, 1, 0]).unwrap(), None);
        assert_eq!(record_len(&[22, 3, 1, 0, 2, 9]).unwrap(), None);
        assert_eq!(record_len(&[22, 3, 1, 0, 2, 9, 9, 7]).unwrap(), Some(7));
        assert_eq!(record_len(&[23, 3, 3, 0, 0]).unwrap(), Some(5));
    }

    #[test]
    fn what_is_not_tls_is_seen_at_its_first_bytes() {
        for garbage in [&b"GET / HTTP/1.1"[..], b"\x16\x02", b"\x80", &[23, 3, 3, 0xff, 0xff]] {
            assert!(record_len(garbage).is_err(), "{garbage:?}");
        }
    }
}
