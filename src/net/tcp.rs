//! Listening, dialling, and the socket options that find dead peers.

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 1024;
/// A silent peer is asked for a sign of life after this ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// ... and again after each of these, until [`DEAD_AFTER`] has passed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT).
pub const DEAD_AFTER: Duration = Duration::from_secs(40);

/// Listens on `port` of `address`, or of every IPv6 and IPv4 address.
///
/// Errors are the system's: EADDRINUSE, EACCES (a port below 1024), EMFILE.
pub fn listen(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let socket = match address {
        Some(ip) => bind(SocketAddr::new(ip, port))?,
        None => match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            // A kernel without IPv6.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?
            }
            other => other?,
        },
    };
    // Whoever is accepted here inherits these: seven system calls a connection are saved.
    prepare(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Begins to connect. When it is done, or has failed, an event comes.
///
/// Errors are the system's: EMFILE, ENETUNREACH (no IPv6 here, say).
pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    match address.ip().is_loopback() {
        true => deliver_at_once(&stream)?,
        false => prepare(&stream)?,
    }
    Ok(stream)
}

/// Where connections go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// From this address.
    Address(IpAddr),
    /// Through this interface, whatever the routes are (SO_BINDTODEVICE).
    Interface(Arc<str>),
}

impl Local {
    /// Whether `address` can be reached from there.
    pub fn fits(&self, address: &SocketAddr) -> bool {
        if let Self::Address(ip) = self { ip.is_ipv4() == address.is_ipv4() } else { true }
    }
}

impl FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's rules for names, and what no address is made of.
        let is_name = (1..libc::IFNAMSIZ).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
            && ![".", ".."].contains(&text)
            && text.parse::<IpAddr>().is_err();
        match text.parse() {
            Ok(ip) => Ok(Self::Address(ip)),
            Err(_) if is_name => Ok(Self::Interface(text.into())),
            Err(_) => Err(format!("{text:?} is neither an IP address nor the name of an interface")),
        }
    }
}

/// [`dial`] from this place.
///
/// Errors are the system's, also: EADDRNOTAVAIL (the address is not ours), ENODEV, EPERM (an interface, without
/// CAP_NET_RAW before Linux 5.7).
pub fn dial_from(local: Option<&Local>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(local) = local else { return dial(address) };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match local {
        Local::Address(ip) => socket.bind(&SocketAddr::new(*ip, 0).into())?,
        Local::Interface(name) => socket.bind_device(Some(name.as_bytes())).map_err(|cause| {
            let hint = if cause.kind() == io::ErrorKind::PermissionDenied {
                " (before Linux 5.7 it takes CAP_NET_RAW)"
            } else {
                ""
            };
            io::Error::new(cause.kind(), format!("interface {name}: {cause}{hint}"))
        })?,
    }
    prepare(&socket)?;
    match socket.connect(&address.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Sets what every relayed connection wants: no delay for small messages, urgent bytes among the others, and an end
/// for dead peers.
fn prepare(stream: &impl AsFd) -> io::Result<()> {
    deliver_at_once(stream)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))
}

/// The part of it that a peer on this machine needs: the kernel tells of its death, and no network is between. Five
/// system calls fewer for each session of a service.
fn deliver_at_once(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)
}

/// What is sent to a peer that has been silent for long already is repeated for so long, four times at first.
const LAST_TRIES: Duration = KEEPALIVE_INTERVAL;
/// Unanswered window probes after which a peer is no longer taken for alive.
const PROBES: u8 = 2;
/// The timeout runs so far ahead of the time for which a window may have been closed.
const PROBE_EVERY: Duration = Duration::from_secs(8);

/// How far a reader is that has not taken everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Its window is closed, and it still answers when it is asked whether it opens it.
    Closed,
    /// Bytes are on their way to it; so many has it acknowledged in all.
    Receiving(u64),
    /// It does not answer.
    Mute,
}

/// To be asked while there is something to send: how far the reader is, and whether its window has ever been too small.
/// `None`: the kernel does not tell.
pub fn reader(stream: &impl AsFd) -> Option<(Reader, bool)> {
    let info = tcp_info(stream)?;
    let was_limited = info.limited > 0;
    let reader = match info {
        Info { unacknowledged: 1.., acknowledged, .. } => Reader::Receiving(acknowledged),
        Info { probes, .. } if probes >= PROBES => Reader::Mute,
        _ => Reader::Closed,
    };
    Some((reader, was_limited))
}

/// How long ago the peer last acknowledged something, if only a keepalive probe.
pub fn silence(stream: &impl AsFd) -> Duration {
    tcp_info(stream).map_or(Duration::ZERO, |info| info.silence)
}

/// Has the kernel wait longer than the time for which it may have been probing the window; `probing`: the longest that
/// this can be.
///
/// TCP_USER_TIMEOUT also ends connections whose peer answers every probe. The kernel counts from the first probe, and
/// forgets it only when a whole segment fits the window: with a small window it goes on counting while data flows, and
/// even when all has been taken. So the timeout must run ahead of that time. While the window is closed not far ahead:
/// the kernel doubles the pause between two probes up to 2 min, but sends the next one before the timeout (Linux 5.11
/// and later, tcp_clamp_probe0_to_user_timeout).
pub fn wait_longer(stream: &impl AsFd, probing: Duration, is_closed: bool) {
    let ahead = if is_closed { PROBE_EVERY } else { DEAD_AFTER };
    // A socket that refuses its options is already broken; writing will tell.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(DEAD_AFTER.max(probing + ahead)));
}

/// Has the kernel wait less long: since then nothing was heard of the peer, and now there is something to acknowledge.
///
/// While something is to be acknowledged there are no keepalive probes, and TCP_USER_TIMEOUT counts from when that was
/// sent: a heartbeat or a message to a peer that has died meanwhile would give it all of [`DEAD_AFTER`] once more.
pub fn wait_less(stream: &impl AsFd, silence: Duration) {
    // As above.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(DEAD_AFTER.saturating_sub(silence).max(LAST_TRIES)));
}

/// Ends [`wait_longer`] and [`wait_less`].
pub fn expect_acknowledgements(stream: &impl AsFd) {
    // As above.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(DEAD_AFTER));
}

/// Bytes that were written and not acknowledged yet.
pub fn unsent(stream: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes one int (tcp(7), SIOCOUTQ).
    let result = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Neither side has ended, as far as the kernel knows.
pub fn is_established(stream: &impl AsFd) -> bool {
    /// TCP_ESTABLISHED of <netinet/tcp.h>.
    const ESTABLISHED: u8 = 1;
    tcp_info(stream).is_some_and(|info| info.state == ESTABLISHED)
}

/// What the kernel knows of a connection.
struct Info {
    state: u8,
    /// Window probes that have not been answered.
    probes: u8,
    /// Segments that have been sent and not acknowledged.
    unacknowledged: u32,
    /// Since the last acknowledgement.
    silence: Duration,
    /// Bytes that have been acknowledged. 0: the kernel is older than Linux 4.1.
    acknowledged: u64,
    /// Microseconds for which the peer's window has held sending up. Kernels older than Linux 4.10 do not tell: it may
    /// always have been so.
    limited: u64,
}

fn tcp_info(stream: &impl AsFd) -> Option<Info> {
    // The beginning of `struct tcp_info` of <linux/tcp.h>, which only ever grows; that of libc is shorter.
    let mut bytes = [0; 184];
    let mut length = bytes.len() as libc::socklen_t;
    let (fd, buffer) = (stream.as_fd().as_raw_fd(), bytes.as_mut_ptr().cast());
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes at most `length` bytes
    // into `bytes`, which is that long. No crate at hand offers TCP_INFO.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &mut length) };
    let short = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    (result == 0).then(|| Info {
        state: bytes[0],
        probes: bytes[3],
        unacknowledged: short(24),
        silence: Duration::from_millis(short(56).into()),
        acknowledged: long(120),
        limited: if length as usize == bytes.len() { long(176) } else { u64::MAX },
    })
}

/// The address as a person writes it: an IPv4 peer of an IPv6 socket is an IPv4 peer.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn who_is_accepted_has_the_options_of_the_listener() {
        let listener = listen(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        };
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap() && socket.out_of_band_inline().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 5);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(DEAD_AFTER));
    }

    #[test]
    fn a_service_on_this_machine_is_not_probed() {
        let listener = listen(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let dialled = dial(listener.local_addr().unwrap()).unwrap();
        let socket = SockRef::from(&dialled);
        assert!(socket.tcp_nodelay().unwrap() && socket.out_of_band_inline().unwrap());
        assert!(!socket.keepalive().unwrap());
    }
}
