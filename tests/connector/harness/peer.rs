//! One end of a connection to the daemon: an agent, a user, a Controller or a stranger, over TCP or TLS. Or to an agent:
//! the Connector that a test plays.
//!
//! It keeps the boundaries of what it hears: over TLS one message is one record, as agents in the field see it.
//! All methods take `&self`, so that one thread may send while another receives.

use super::{PATIENCE, SILENCE, wait_until};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const SMALL: usize = 16 * 1024;

/// How to reach a port of the daemon.
#[derive(Clone)]
pub struct Dial {
    to: SocketAddr,
    from: Option<IpAddr>,
    tls: Option<Arc<ClientConfig>>,
    small_buffers: bool,
    /// What goes before everything else.
    before: Vec<Vec<u8>>,
}

impl Dial {
    pub fn new(port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { to: (Ipv4Addr::LOCALHOST, port).into(), from: None, tls, small_buffers: false, before: Vec::new() }
    }

    /// To another address of this machine.
    pub fn to(self, address: impl Into<IpAddr>) -> Self {
        Self { to: (address.into(), self.to.port()).into(), ..self }
    }

    /// Without TLS, whatever the daemon expects.
    pub fn without_tls(self) -> Self {
        Self { tls: None, ..self }
    }

    /// Without naming the server in the TLS handshake (SNI); else it is `localhost`.
    pub fn without_server_name(mut self) -> Self {
        if let Some(config) = &mut self.tls {
            Arc::make_mut(config).enable_sni = false;
        }
        self
    }

    pub fn with_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// From that loopback address, to be another host for the daemon.
    pub fn from(self, address: [u8; 4]) -> Self {
        Self { from: Some(address.into()), ..self }
    }

    /// With kernel buffers so small that back-pressure is felt soon.
    pub fn small_buffers(self) -> Self {
        Self { small_buffers: true, ..self }
    }

    /// These pieces go over the wire before everything else, a TLS handshake included: what a proxy says.
    pub fn after(self, pieces: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self { before: pieces.into_iter().map(Into::into).collect(), ..self }
    }

    /// Connects, and finishes the TLS handshake if there is one.
    pub fn connect(&self) -> io::Result<Peer> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        if self.small_buffers {
            socket.set_recv_buffer_size(SMALL)?;
            socket.set_send_buffer_size(SMALL)?;
        }
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&SockAddr::from(self.to), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        self.before.iter().try_for_each(|piece| (&socket).write_all(piece))?;
        let tls = match &self.tls {
            None => None,
            Some(config) => {
                let name = "localhost".try_into().map_err(io::Error::other)?;
                let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                connection.set_buffer_limit(None);
                Some(connection.into())
            }
        };
        Peer::new(socket.into(), tls)
    }
}

/// What was heard.
#[derive(PartialEq, Eq)]
pub enum Heard {
    /// One TLS record, or what one read gave.
    Message(Vec<u8>),
    Ended(End),
    /// Nothing within the time given.
    Silence,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => {
                let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
                write!(f, "a message of {} bytes, {begin:?}", bytes.len())
            }
            Self::Ended(end) => write!(f, "the end ({end:?})"),
            Self::Silence => f.write_str("nothing"),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN, and over TLS a close_notify before it.
    Clean,
    /// FIN over TLS without close_notify.
    Cut,
    Reset,
    /// The daemon told why, over TLS.
    Alert(AlertDescription),
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(description) => Some(*description),
        _ => None,
    }
}

/// A connection to the daemon.
pub struct Peer {
    socket: TcpStream,
    tls: Option<Mutex<Connection>>,
    /// Came, but is not a whole record yet.
    incoming: Mutex<Vec<u8>>,
    /// As it goes over the wire, but the kernel does not take it yet.
    outgoing: Mutex<Vec<u8>>,
}

impl Peer {
    /// The other end of a connection that somebody has made to the test.
    pub fn accepted(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
                connection.set_buffer_limit(None);
                Some(connection.into())
            }
        };
        Self::new(socket, tls)
    }

    /// Finishes the TLS handshake if there is one.
    fn new(socket: TcpStream, tls: Option<Connection>) -> io::Result<Self> {
        let (incoming, outgoing) = (Mutex::default(), Mutex::default());
        let peer = Self { socket, tls: tls.map(Mutex::new), incoming, outgoing };
        peer.shake_hands()?;
        Ok(peer)
    }

    fn shake_hands(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        while lock(tls).is_handshaking() {
            self.flush_by(&mut lock(&self.outgoing), Instant::now() + PATIENCE)?;
            match self.hear_record(Instant::now() + PATIENCE)? {
                None => {}
                Some(heard) => return Err(io::Error::other(format!("during the handshake: {heard:?}"))),
            }
        }
        self.flush_by(&mut lock(&self.outgoing), Instant::now() + PATIENCE).map(drop)
    }

    /// Sends one message: one record over TLS, if it fits 16 KiB.
    #[track_caller]
    pub fn send(&self, message: &[u8]) {
        assert!(self.send_within(message, PATIENCE), "the daemon takes nothing any more");
    }

    /// Like [`Peer::send`]; false if not everything was taken within `patience`. The rest is kept: [`Peer::flush`].
    #[track_caller]
    pub fn send_within(&self, message: &[u8], patience: Duration) -> bool {
        self.try_send(message, patience).expect("a connection that can be written to")
    }

    /// Like [`Peer::send_within`], for who expects that the connection may be gone.
    pub fn try_send(&self, message: &[u8], patience: Duration) -> io::Result<bool> {
        let mut outgoing = lock(&self.outgoing);
        match &self.tls {
            None => outgoing.extend_from_slice(message),
            Some(tls) => lock(tls).writer().write_all(message)?,
        }
        self.flush_by(&mut outgoing, Instant::now() + patience)
    }

    /// The address that it calls from.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("a connected socket")
    }

    /// Writes past TLS, which is how a stranger in the middle would.
    pub fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Reads up to `most` bytes past TLS and throws them away, as who must hold a connection and wants nothing of it.
    pub fn skip_raw(&self, most: usize) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        (&self.socket).read(&mut vec![0; most])
    }

    /// Sends one byte as TCP's urgent data.
    pub fn send_urgent(&self, byte: u8) {
        SockRef::from(&self.socket).send_out_of_band(&[byte]).expect("a connection that can be written to");
    }

    /// Changes the keys it sends with and asks the daemon to do so, too (TLS 1.3).
    pub fn update_keys(&self) {
        let tls = self.tls.as_ref().expect("only called over TLS");
        lock(tls).refresh_traffic_keys().expect("TLS 1.3");
        self.flush();
    }

    /// Finishes what [`Peer::send_within`] could not.
    #[track_caller]
    pub fn flush(&self) {
        let done = self.flush_by(&mut lock(&self.outgoing), Instant::now() + PATIENCE);
        assert!(done.expect("a connection that can be written to"), "the daemon takes nothing any more");
    }

    fn flush_by(&self, outgoing: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
        if let Some(tls) = &self.tls {
            let mut tls = lock(tls);
            while tls.wants_write() {
                tls.write_tls(outgoing)?;
            }
        }
        while !outgoing.is_empty() {
            let Some(left) = time_left(deadline) else { return Ok(false) };
            self.socket.set_write_timeout(Some(left))?;
            match (&self.socket).write(outgoing) {
                Ok(written) => drop(outgoing.drain(..written)),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Waits for the next message or the end, at most `patience`.
    pub fn hear(&self, patience: Duration) -> Heard {
        self.hear_up_to(64 * 1024, patience)
    }

    /// Like [`Peer::hear`]; over plain TCP, which has no boundaries, what is behind `most` bytes is left for later.
    fn hear_up_to(&self, most: usize, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        if self.tls.is_none() {
            let mut bytes = vec![0; most];
            return match self.read(&mut bytes, deadline) {
                Ok(Some(0)) => Heard::Ended(End::Clean),
                Ok(Some(read)) => {
                    bytes.truncate(read);
                    Heard::Message(bytes)
                }
                Ok(None) => Heard::Silence,
                Err(_) => Heard::Ended(End::Reset),
            };
        }
        loop {
            match self.hear_record(deadline) {
                Ok(Some(heard)) => return heard,
                Ok(None) => {}
                Err(error) => match alert(&error) {
                    Some(description) => return Heard::Ended(End::Alert(description)),
                    None => panic!("what came is not TLS: {error}"),
                },
            }
        }
    }

    /// Takes one TLS record in; `None` if it was not for the reader, such as a part of a handshake.
    fn hear_record(&self, deadline: Instant) -> io::Result<Option<Heard>> {
        let tls = self.tls.as_ref().expect("only called over TLS");
        let mut incoming = lock(&self.incoming);
        if lock(tls).process_new_packets().map_err(io::Error::other)?.peer_has_closed() {
            return Ok(Some(Heard::Ended(End::Clean)));
        }
        let length = loop {
            let length = incoming.get(3..5).map(|length| 5 + usize::from(length[0]) * 256 + usize::from(length[1]));
            if let Some(length) = length.filter(|length| *length <= incoming.len()) {
                break length;
            }
            let mut bytes = [0; 32 * 1024];
            match self.read(&mut bytes, deadline) {
                Ok(Some(0)) => return Ok(Some(Heard::Ended(End::Cut))),
                Ok(Some(read)) => incoming.extend_from_slice(&bytes[..read]),
                Ok(None) => return Ok(Some(Heard::Silence)),
                Err(_) => return Ok(Some(Heard::Ended(End::Reset))),
            }
        };
        let record: Vec<u8> = incoming.drain(..length).collect();
        let mut tls = lock(tls);
        let mut rest = &record[..];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
        }
        let waiting = tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
        let mut message = vec![0; waiting];
        tls.reader().read_exact(&mut message)?;
        Ok((waiting > 0).then_some(Heard::Message(message)))
    }

    fn read(&self, bytes: &mut [u8], deadline: Instant) -> io::Result<Option<usize>> {
        while let Some(left) = time_left(deadline) {
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(bytes) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The next message, which must come.
    #[track_caller]
    pub fn expect_some(&self) -> Vec<u8> {
        match self.hear(PATIENCE) {
            Heard::Message(message) => message,
            other => panic!("expected bytes, got {other:?}"),
        }
    }

    /// The next message, which must come. What is behind `most` bytes over plain TCP is left for later.
    #[track_caller]
    pub fn expect_up_to(&self, most: usize) -> Vec<u8> {
        match self.hear_up_to(most, PATIENCE) {
            Heard::Message(message) => message,
            other => panic!("expected bytes, got {other:?}"),
        }
    }

    /// Exactly this as the next message. What is behind it over plain TCP is left for later.
    #[track_caller]
    pub fn expect_message(&self, expected: &[u8]) {
        let heard = self.hear_up_to(expected.len(), PATIENCE);
        assert_eq!(heard, Heard::Message(expected.to_vec()));
    }

    /// Exactly these bytes next, in whatever pieces.
    #[track_caller]
    pub fn expect(&self, expected: &[u8]) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            match self.hear_up_to(expected.len() - got.len(), PATIENCE) {
                Heard::Message(bytes) => got.extend(bytes),
                other => panic!("{other:?} after {} of {} bytes", got.len(), expected.len()),
            }
        }
        assert!(got == expected, "got {:?}", String::from_utf8_lossy(&got));
    }

    /// The end, without a byte before it.
    #[track_caller]
    pub fn expect_end(&self) -> End {
        match self.hear(PATIENCE) {
            Heard::Ended(end) => end,
            other => panic!("expected the end, got {other:?}"),
        }
    }

    /// FIN, and over TLS close_notify, without a byte before it.
    #[track_caller]
    pub fn expect_clean_end(&self) {
        assert_eq!(self.expect_end(), End::Clean);
    }

    /// The end, after whatever comes before it.
    #[track_caller]
    pub fn expect_end_at_last(&self, patience: Duration) -> End {
        let deadline = Instant::now() + patience;
        loop {
            match self.hear(time_left(deadline).unwrap_or_default()) {
                Heard::Message(_) => {}
                Heard::Ended(end) => return end,
                Heard::Silence => panic!("no end within {patience:?}"),
            }
        }
    }

    /// Neither bytes nor the end for [`SILENCE`].
    #[track_caller]
    pub fn expect_silence(&self) {
        assert_eq!(self.hear(SILENCE), Heard::Silence);
    }

    /// Says that nothing more is sent: a FIN, over TLS a close_notify and a FIN.
    pub fn finish(&self) {
        if let Some(tls) = &self.tls {
            lock(tls).send_close_notify();
        }
        let _ = self.flush_by(&mut lock(&self.outgoing), Instant::now() + PATIENCE);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Waits until the other side's kernel has everything, an end included, whether the daemon looks or not.
    #[track_caller]
    pub fn wait_until_acknowledged(&self) {
        wait_until("all is acknowledged", PATIENCE, || {
            let mut bytes: libc::c_int = 0;
            // SAFETY: the descriptor is open, and the kernel writes one int (tcp(7), SIOCOUTQ).
            let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
            result == 0 && bytes == 0
        });
    }

    /// FIN without close_notify, which over TLS is no proper end.
    pub fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// close_notify over TLS, and no FIN.
    pub fn notify(&self) {
        lock(self.tls.as_ref().expect("only called over TLS")).send_close_notify();
        self.flush();
    }

    /// A record that no key has sealed.
    pub fn forge(&self) {
        self.send_raw(&[23, 3, 3, 0, 32].into_iter().chain([0x5a; 32]).collect::<Vec<u8>>()).expect("a connection");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// The same for a peer that somebody still holds; nothing comes from it or to it any more.
    pub fn abort(&self) {
        reset_now(&self.socket);
    }
}

/// Resets a connection that somebody may still hold.
pub fn reset_now(socket: &TcpStream) {
    // Connecting a TCP socket to "no address" resets it (connect(2), AF_UNSPEC).
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of `nowhere`.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &nowhere, length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn time_left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A lock that a failed assertion elsewhere does not turn into a second failure.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
