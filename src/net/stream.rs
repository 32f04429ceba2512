//! A byte stream that may be TCP (the network) or Unix (the daemon's own HTTP parser).
//!
//! Only what both can do, without blocking; errors are the system's own.

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One connected (or connecting) socket.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    /// Reads what is there; 0 is the end.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.socket()).read(buf)
    }

    /// Writes what the kernel takes.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket().send_with_flags(buf, libc::MSG_NOSIGNAL)
    }

    /// The same, and more follows at once: TCP sends both in one segment, and this alone after 200 ms if nothing came
    /// behind it (tcp(7), MSG_MORE). Unix sockets ignore the flag.
    pub fn write_ahead(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket().send_with_flags(buf, libc::MSG_MORE | libc::MSG_NOSIGNAL)
    }

    /// Looks at what is there and leaves it there; 0 is the end.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buf),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes `count` bytes that were looked at before from the kernel, without copying them again.
    ///
    /// `nowhere` only lends its capacity: with MSG_TRUNC the kernel throws the bytes away (tcp(7)).
    pub fn discard(&self, count: usize, nowhere: &mut Vec<u8>) -> io::Result<usize> {
        let room = &mut nowhere.spare_capacity_mut()[..count];
        match self {
            Self::Tcp(_) => self.socket().recv_with_flags(room, libc::MSG_TRUNC),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends FIN: no more bytes will follow.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// Whether closing it resets the connection, and throws away what the kernel has not sent (socket(7), SO_LINGER).
    /// Unix sockets know no such thing.
    pub fn set_abortive(&self, abortive: bool) -> io::Result<()> {
        self.socket().set_linger(abortive.then_some(Duration::ZERO))
    }

    /// The error that a connect or the network left behind, if any.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }

    /// Asks to be told of both directions, and of urgent data.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, interest),
            Self::Unix(stream) => registry.register(stream, token, interest),
        }
    }
}
