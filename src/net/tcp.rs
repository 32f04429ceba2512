//! Listening, dialling, and the socket options that find dead peers.

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
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
    prepare(&stream)?;
    Ok(stream)
}

/// Sets what every relayed connection wants: no delay for small messages, urgent bytes among the others, and an end
/// for dead peers.
pub fn prepare(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))
}

/// Unanswered window probes after which a peer is no longer taken for alive.
const PROBES: u8 = 3;

/// Switches the end for peers that acknowledge nothing on or off.
///
/// TCP_USER_TIMEOUT also ends connections whose peer answers every probe with "no room yet"; a slow reader is
/// not dead (docs/protocol.md, "Public pipe").
pub fn set_user_timeout(stream: &impl AsFd, on: bool) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(if on { DEAD_AFTER } else { Duration::ZERO }))
}

/// The peer has closed its window, and still answers when it is asked whether it opens it.
pub fn is_slow_but_alive(stream: &impl AsFd) -> bool {
    tcp_info(stream).is_some_and(|info| info.tcpi_unacked == 0 && info.tcpi_probes <= PROBES)
}

/// Bytes that were written and not acknowledged yet.
pub fn unsent(stream: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes one int (tcp(7), SIOCOUTQ).
    let result = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

fn tcp_info(stream: &impl AsFd) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes at most `length` bytes
    // into `info`, which is that large. No crate at hand offers TCP_INFO.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    // SAFETY: all of `tcp_info` is integers, for which the zeroes that an older kernel leaves are valid.
    (result == 0).then(|| unsafe { info.assume_init() })
}

/// The address as a person writes it: an IPv4 peer of an IPv6 socket is an IPv4 peer.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
