//! Local services that an agent makes reachable: a thread a connection.

use super::{Heard, PATIENCE, Payload, Peer};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A service on a port of 127.0.0.1. It takes no more connections once dropped.
pub struct Service {
    pub port: u16,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    /// Serves each connection with `serve`, in a thread of its own.
    pub fn start(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, serve) = (stream.expect("a connection"), serve.clone());
                stream.set_nodelay(true).expect("a TCP socket");
                thread::spawn(move || serve(stream));
            }
        });
        Self { port, stopped, acceptor: Some(acceptor) }
    }

    /// Sends back what it gets.
    pub fn echo() -> Self {
        Self::start(|stream| {
            let _ = std::io::copy(&mut &stream, &mut &stream);
        })
    }

    /// An HTTP/1.0 server: `GET /SEED/LENGTH` is answered with so many bytes of that payload.
    pub fn downloads() -> Self {
        Self::start(|mut stream| {
            let Some((seed, length)) = read_request(&mut stream) else { return };
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&Payload::new(seed).take(length)));
            let _ = stream.shutdown(Shutdown::Write);
        })
    }
}

impl Service {
    /// From now on connections to its port are refused.
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(u64, usize)> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).ok()?;
    let (seed, length) = request.strip_prefix("GET /")?.split(' ').next()?.split_once('/')?;
    Some((seed.parse().ok()?, length.parse().ok()?))
}

impl Peer {
    /// Fetches so many bytes of that payload from [`Service::downloads`] and checks them, up to the end.
    #[track_caller]
    pub fn download(&self, seed: u64, length: usize) {
        self.send(format!("GET /{seed}/{length} HTTP/1.0\r\n\r\n").as_bytes());
        let answer = self.everything();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert!(answer.starts_with(head.as_bytes()), "{} bytes, and no head in front of them", answer.len());
        assert_eq!(answer.len() - head.len(), length);
        Payload::new(seed).check(&answer[head.len()..]);
    }

    /// Whether exactly these bytes come next within `patience`.
    pub fn hears(&self, expected: &[u8], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut got = Vec::new();
        while got.len() < expected.len() {
            match self.hear(deadline.saturating_duration_since(Instant::now())) {
                Heard::Message(bytes) => got.extend(bytes),
                _ => return false,
            }
        }
        got == expected
    }

    /// All that comes before the end.
    #[track_caller]
    pub fn everything(&self) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            match self.hear(PATIENCE) {
                Heard::Message(bytes) => got.extend(bytes),
                Heard::Ended(_) => return got,
                Heard::Silence => panic!("neither bytes nor the end after {} bytes", got.len()),
            }
        }
    }
}
