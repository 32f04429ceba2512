//! rustls behind "take this record" and "seal this message".
//!
//! Works on memory only: who owns the socket feeds one whole record at a time and sends what comes out.
//! One record at a time, because the agents' protocol lives on record boundaries (docs/protocol.md, section 4)
//! and because what lies behind the handshake must stay unread until somebody wants it.
//!
//! rustls' unbuffered interface keeps ranges into the bytes that it has seen and not given back. To show it others
//! makes it panic, and so there is one way in ([`Tls::enter`]): those bytes stay in their place (`Session::kept`), and
//! after the first error, or close_notify, the session is dropped: there is nothing left that could be entered.
//! Should rustls panic all the same, that ends one connection ([`contain`]).
//!
//! Why not its ordinary interface: that has a deframer's buffer of 4 KiB for each connection, which nothing frees. An
//! earlier trial measured 7.6 KiB a connection with it and 3.4 here, and 0.91 s of CPU for a GB instead of 0.87; it was
//! not fuzzed. This one stays only as long as it survives the fuzzers (`fuzz/`: tls_handshake, tls_records).
//!
//! The change to this wrapper with its buffers, compared with the release before it (x86-64, glibc, 1,000 idle agents,
//! two rounds on a busy machine): 3.92 KiB a connection instead of 3.85; 4.26 and 4.36 MB at the start became 4.48 and
//! 4.36; CPU a GB was within the noise. The stripped binary has 2.73 MB instead of 2.44: unwinding and new code together.

use super::server_name::ServerName;
use crate::crash::{Panicked, contain};
use crate::limits::{HANDSHAKE_BYTES, WARNINGS};
use rustls::ProtocolVersion;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use std::fmt;

/// Bytes by which the room for a handshake message in pieces grows.
const KEPT_STEP: usize = 1024;
/// Bytes of a record's header: type, version, length (RFC 8446, section 5.1).
const HEADER: usize = 5;
/// What encryption may add to a message of a record, in TLS 1.2 (RFC 5246, section 6.2.3).
const EXPANSION: usize = 2048;
/// Bytes of payload in one record at most (RFC 8446, section 5.1).
pub const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a sealed record at most, header included, as we make it.
pub const MAX_SEALED: usize = MAX_MESSAGE + 256;

/// One TLS connection, either end of it.
pub struct Tls {
    state: State,
    /// Bytes that the peer may still send before its handshake is done; `None`: it is.
    handshake: Option<usize>,
    /// The peer has sent close_notify ...
    closed: bool,
    /// ... and we have.
    notified: bool,
    /// What the client calls us.
    name: ServerName,
}

enum State {
    Live(Session),
    /// It has failed, or said goodbye. There is nothing that could be called.
    Over,
}

/// A rustls connection, and what must be shown to it again.
struct Session {
    end: End,
    /// Records of a handshake message that is not complete yet. Empty, without memory, almost always.
    kept: Vec<u8>,
    /// Bytes that `kept` may have.
    most: usize,
}

enum End {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// The connection cannot be used any more: what the peer sent is not TLS or breaks its rules, or it was over before.
#[derive(Debug)]
pub enum TlsError {
    /// The first bytes are no record header.
    NotTls,
    Tls(rustls::Error),
    /// The handshake, or one of its messages that comes in pieces, is longer than we keep.
    TooLong,
    /// rustls has panicked.
    Internal,
    /// It had failed, or been closed, before.
    Over,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("the peer does not speak TLS"),
            Self::Tls(e) => e.fmt(f),
            Self::TooLong => f.write_str("the TLS handshake is longer than allowed"),
            Self::Internal => f.write_str("internal error in TLS"),
            Self::Over => f.write_str("the TLS connection is over"),
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(e: rustls::Error) -> Self {
        Self::Tls(e)
    }
}

impl From<Panicked> for TlsError {
    fn from(Panicked: Panicked) -> Self {
        Self::Internal
    }
}

/// Length of the record that `bytes` begin with, header included; `None` if it is not all there yet.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
    // Types 20 to 23: change_cipher_spec, alert, handshake, application_data.
    let plausible = bytes.first().is_none_or(|kind| (20..=23).contains(kind)) && bytes.get(1).is_none_or(|&v| v == 3);
    if !plausible {
        return Err(TlsError::NotTls);
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body > MAX_MESSAGE + EXPANSION {
        return Err(TlsError::NotTls);
    }
    Ok((bytes.len() >= HEADER + body).then_some(HEADER + body))
}

impl Tls {
    /// The accepting end. `most`: bytes of a handshake message in pieces that are kept until it is complete.
    pub fn server(connection: UnbufferedServerConnection, most: usize) -> Self {
        Self::new(End::Server(Box::new(connection)), most)
    }

    /// The dialling end. [`Tls::begin`] makes its first flight.
    pub fn client(connection: UnbufferedClientConnection, most: usize) -> Self {
        Self::new(End::Client(Box::new(connection)), most)
    }

    fn new(end: End, most: usize) -> Self {
        let session = Session { end, kept: Vec::new(), most };
        Self {
            state: State::Live(session),
            handshake: Some(HANDSHAKE_BYTES),
            closed: false,
            notified: false,
            name: ServerName::Unwanted,
        }
    }

    /// Remembers the server name that the client asks for.
    pub fn want_server_name(&mut self) {
        self.name = ServerName::Wanted;
    }

    /// The server name that the client has asked for, if that was wanted.
    pub fn server_name(&self) -> Option<&str> {
        self.name.get()
    }

    /// It is not wanted any more.
    pub fn forget_server_name(&mut self) {
        self.name = ServerName::Unwanted;
    }

    /// Before the handshake is done nothing can be sealed and no message comes out.
    pub fn is_handshaking(&self) -> bool {
        self.handshake.is_some()
    }

    /// The peer has sent its close_notify: no message will come any more.
    pub fn peer_has_closed(&self) -> bool {
        self.closed
    }

    /// What was agreed on.
    pub fn version(&self) -> Option<&'static str> {
        let State::Live(Session { end, .. }) = &self.state else { return None };
        let version = match end {
            End::Server(c) => c.protocol_version(),
            End::Client(c) => c.protocol_version(),
        };
        match version? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    /// Puts what the dialling end says first into `reply`.
    pub fn begin(&mut self, reply: &mut Vec<u8>) -> Result<(), TlsError> {
        self.take_record(&mut [], reply, |_| ())
    }

    /// Takes one whole record. Messages go to `message`, answers of the handshake (and alerts) into `reply`.
    ///
    /// After an error, which is the end of the connection, `reply` may hold the alert that tells the peer.
    pub fn take_record(
        &mut self,
        record: &mut [u8],
        reply: &mut Vec<u8>,
        mut message: impl FnMut(&[u8]),
    ) -> Result<(), TlsError> {
        let left = self.handshake.map_or(Some(0), |left| left.checked_sub(record.len()));
        let work = |session: &mut Session| {
            left.ok_or(TlsError::TooLong)?;
            session.take(record, reply, &mut message)
        };
        let turn = if self.is_handshaking() {
            let mut name = std::mem::take(&mut self.name);
            let turn = name.listen(|| self.enter(work));
            self.name = name;
            turn?
        } else {
            self.enter(work)?
        };
        self.closed |= turn.closed;
        self.handshake = if turn.handshaking { left } else { None };
        Ok(())
    }

    /// Seals `message` (at most [`MAX_MESSAGE`] bytes) as one record into `out` (at least [`MAX_SEALED`] bytes).
    pub fn seal(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, TlsError> {
        debug_assert!(message.len() <= MAX_MESSAGE);
        self.enter(|Session { end, kept, .. }| match end {
            End::Server(c) => seal(c, process_server, kept, message, out),
            End::Client(c) => seal(c, process_client, kept, message, out),
        })
    }

    /// Puts close_notify into `reply`. What the peer sends can still be read.
    pub fn end_output(&mut self, reply: &mut Vec<u8>) {
        // Failing to say goodbye changes nothing: the FIN follows.
        let _ = self.notify(reply);
    }

    /// Puts close_notify into `reply`, if that was not done before. The connection is over then; what it takes of memory is free.
    pub fn close(&mut self, reply: &mut Vec<u8>) {
        let _ = self.notify(reply);
        self.state = State::Over;
    }

    fn notify(&mut self, reply: &mut Vec<u8>) -> Result<(), TlsError> {
        if std::mem::replace(&mut self.notified, true) {
            return Ok(());
        }
        self.enter(|Session { end, kept, .. }| match end {
            End::Server(c) => close(c, process_server, kept, reply),
            End::Client(c) => close(c, process_client, kept, reply),
        })
    }

    /// The only way to rustls, and the last one if it fails.
    fn enter<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T, TlsError>) -> Result<T, TlsError> {
        let State::Live(session) = &mut self.state else { return Err(TlsError::Over) };
        let result = work(session);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }
}

/// What became of one record.
struct Turn {
    /// Bytes that are done with, from the beginning.
    used: usize,
    handshaking: bool,
    /// The peer has sent close_notify.
    closed: bool,
}

impl Session {
    // Not generic: each kind of reader would have a copy of all below.
    fn take(
        &mut self,
        record: &mut [u8],
        reply: &mut Vec<u8>,
        message: &mut dyn FnMut(&[u8]),
    ) -> Result<Turn, TlsError> {
        let Self { end, kept, most } = self;
        if kept.is_empty() {
            let turn = end.turn(record, reply, message)?;
            let rest = record.get(turn.used..).unwrap_or_default();
            if rest.len() > *most {
                return Err(TlsError::TooLong);
            }
            kept.reserve_exact(rest.len());
            kept.extend_from_slice(rest);
            return Ok(turn);
        }
        if kept.capacity() - kept.len() < record.len() {
            // In steps: a piece may have a few bytes, and each other size leaves the allocator with another hole.
            kept.reserve_exact(record.len().next_multiple_of(KEPT_STEP));
        }
        kept.extend_from_slice(record);
        let turn = end.turn(kept, reply, message)?;
        kept.drain(..turn.used.min(kept.len()));
        if kept.is_empty() {
            *kept = Vec::new();
        }
        if kept.len() > *most { Err(TlsError::TooLong) } else { Ok(turn) }
    }
}

impl End {
    fn turn(
        &mut self,
        input: &mut [u8],
        reply: &mut Vec<u8>,
        message: &mut dyn FnMut(&[u8]),
    ) -> Result<Turn, TlsError> {
        match self {
            Self::Server(c) => crank(c, process_server, input, reply, message),
            Self::Client(c) => crank(c, process_client, input, reply, message),
        }
    }
}

/// `process_tls_records` of one end: each has its own.
type Process<D> = for<'c, 'i> fn(&'c mut UnbufferedConnectionCommon<D>, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, D>;

fn process_server<'c, 'i>(
    connection: &'c mut UnbufferedConnectionCommon<ServerConnectionData>,
    input: &'i mut [u8],
) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
    connection.process_tls_records(input)
}

fn process_client<'c, 'i>(
    connection: &'c mut UnbufferedConnectionCommon<ClientConnectionData>,
    input: &'i mut [u8],
) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
    connection.process_tls_records(input)
}

/// Lets rustls work through `input` until it wants more.
fn crank<D>(
    connection: &mut UnbufferedConnectionCommon<D>,
    process: Process<D>,
    input: &mut [u8],
    reply: &mut Vec<u8>,
    message: &mut dyn FnMut(&[u8]),
) -> Result<Turn, TlsError> {
    let (mut used, mut closed) = (0, false);
    loop {
        let UnbufferedStatus { discard, state } = contain("TLS", || process(connection, &mut input[used..]))?;
        used += discard;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                // What is done with a message is not rustls' work: outside the containment.
                while let Some(record) = contain("TLS", || traffic.next_record())? {
                    let record = record?;
                    used += record.discard;
                    message(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => contain("TLS", || put(reply, |room| data.encode(room)))??,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            // What stands behind close_notify is ignored.
            Ok(ConnectionState::PeerClosed) => (closed, used) = (true, input.len()),
            Ok(ConnectionState::ReadEarlyData(_)) => {
                return Err(rustls::Error::General("early data is off".into()).into());
            }
            Ok(_) => return Ok(Turn { used, handshaking: connection.is_handshaking(), closed }),
            Err(e) => {
                contain("TLS", || tell(connection, process, reply))?;
                return Err(e.into());
            }
        }
    }
}

/// Puts the alerts that are to go out into `reply`.
///
/// While there are any, rustls looks at nothing else, and needs no input.
fn tell<D>(connection: &mut UnbufferedConnectionCommon<D>, process: Process<D>, reply: &mut Vec<u8>) {
    for _ in 0..WARNINGS {
        if !connection.wants_write() {
            return;
        }
        let Ok(ConnectionState::EncodeTlsData(mut data)) = process(connection, &mut []).state else { return };
        if put(reply, |room| data.encode(room)).is_err() {
            return;
        }
    }
}

fn seal<D>(
    connection: &mut UnbufferedConnectionCommon<D>,
    process: Process<D>,
    kept: &mut [u8],
    message: &[u8],
    out: &mut [u8],
) -> Result<usize, TlsError> {
    contain("TLS", || match process(connection, kept).state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            traffic.encrypt(message, out).map_err(|e| rustls::Error::General(e.to_string()).into())
        }
        _ => Err(rustls::Error::HandshakeNotComplete.into()),
    })?
}

fn close<D>(
    connection: &mut UnbufferedConnectionCommon<D>,
    process: Process<D>,
    kept: &mut [u8],
    reply: &mut Vec<u8>,
) -> Result<(), TlsError> {
    contain("TLS", || match process(connection, kept).state? {
        ConnectionState::WriteTraffic(mut traffic) => put(reply, |room| traffic.queue_close_notify(room)),
        _ => Ok(()),
    })?
}

/// Appends what `write` makes, giving it as much room as it asks for.
fn put<E: TooSmall>(reply: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<(), TlsError> {
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
                    return Err(rustls::Error::General("no TLS record could be written".into()).into());
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
    use crate::limits::HANDSHAKE_PIECES;
    use rustls::crypto::ring;
    use rustls::pki_types::ServerName;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::sync::Arc;

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

    /// Stands for a fault inside rustls.
    #[derive(Debug)]
    struct Faulty;

    impl ResolvesServerCert for Faulty {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            panic!("a fault inside rustls")
        }
    }

    fn server() -> Tls {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(Faulty));
        Tls::server(UnbufferedServerConnection::new(Arc::new(config)).unwrap(), HANDSHAKE_PIECES)
    }

    fn client() -> Tls {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        Tls::client(UnbufferedClientConnection::new(Arc::new(config), name).unwrap(), HANDSHAKE_PIECES)
    }

    /// Nothing can be done with it any more, and nothing panics.
    fn expect_over(mut tls: Tls) {
        let mut reply = Vec::new();
        let again = tls.take_record(&mut [22, 3, 1, 0, 1, 1], &mut reply, |_| ());
        assert!(matches!(again, Err(TlsError::Over)), "{again:?}");
        assert!(matches!(tls.seal(b"x", &mut [0; MAX_SEALED]), Err(TlsError::Over)));
        tls.close(&mut reply);
        assert!(reply.is_empty() && tls.is_handshaking());
    }

    #[test]
    fn a_panic_inside_rustls_is_the_end_of_one_connection() {
        let (mut server, mut hello) = (server(), Vec::new());
        client().begin(&mut hello).unwrap();
        let taken = server.take_record(&mut hello, &mut Vec::new(), |_| ());
        assert!(matches!(taken, Err(TlsError::Internal)), "{taken:?}");
        expect_over(server);
    }

    #[test]
    fn after_an_error_there_is_an_alert_and_nothing_else() {
        for mut tls in [server(), client()] {
            tls.begin(&mut Vec::new()).unwrap();
            let mut reply = Vec::new();
            let taken = tls.take_record(&mut [22, 3, 1, 0, 4, 0, 0, 0, 0], &mut reply, |_| ());
            assert!(matches!(taken, Err(TlsError::Tls(_))), "{taken:?}");
            assert_eq!((reply.len(), reply[0]), (7, 21), "an alert");
            expect_over(tls);
        }
    }

    #[test]
    fn pieces_of_a_handshake_are_kept_up_to_a_limit() {
        let mut tls = server();
        let mut first = [&[22, 3, 1, 0x0f, 0x00, 1, 0, 0xea, 0x60][..], &[0; 0x0f00 - 4]].concat();
        tls.take_record(&mut first, &mut Vec::new(), |_| ()).unwrap();
        let more = tls.take_record(&mut first, &mut Vec::new(), |_| ());
        assert!(matches!(more, Err(TlsError::TooLong)), "{more:?}");
        expect_over(tls);
    }

    #[test]
    fn a_handshake_is_not_endless() {
        let mut tls = server();
        // ChangeCipherSpec is dropped before a ClientHello or ends the connection: either way there is an end.
        let ends =
            (0..HANDSHAKE_BYTES).any(|_| tls.take_record(&mut [20, 3, 1, 0, 1, 1], &mut Vec::new(), |_| ()).is_err());
        assert!(ends);
        expect_over(tls);
    }
}
