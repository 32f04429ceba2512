//! A byte stream that may be TCP (the network) or Unix (the daemon's own HTTP parser).
//!
//! Only what both can do, without blocking; errors are the system's own.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// One connected (or connecting) socket.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there; 0 is the end.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }

    /// Writes what the kernel takes.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    /// The same, and more follows at once: TCP sends both in one segment, and this alone after 200 ms if nothing came
    /// behind it (tcp(7), MSG_MORE).
    pub fn write_ahead(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => SockRef::from(&*stream).send_with_flags(buf, libc::MSG_MORE | libc::MSG_NOSIGNAL),
            Self::Unix(stream) => stream.write(buf),
        }
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
            Self::Tcp(stream) => SockRef::from(stream).recv_with_flags(room, libc::MSG_TRUNC),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends FIN: no more bytes will follow.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Whether closing it resets the connection, and throws away what the kernel has not sent (socket(7), SO_LINGER).
    /// Unix sockets know no such thing.
    pub fn set_abortive(&self, abortive: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(abortive.then_some(Duration::ZERO)),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The error that a connect or the network left behind, if any.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Asks to be told of both directions, and of urgent data.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY)
    }
}
