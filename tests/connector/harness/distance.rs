//! A relay in the middle of connections that makes them long: each byte arrives so much later.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Relays connections to its port to another port of 127.0.0.1.
pub struct Distance {
    pub port: u16,
    is_over: Arc<AtomicBool>,
}

impl Distance {
    /// `delay`: of each direction. A connection is there after one round trip, as over a real line.
    pub fn to(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        thread::spawn(move || {
            for near in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let near = near.expect("a connection");
                thread::spawn(move || {
                    // Who has connected may send at once, and has waited for no SYN.
                    thread::sleep(2 * delay);
                    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
                    let other = (near.try_clone().expect("a descriptor"), far.try_clone().expect("a descriptor"));
                    thread::spawn(move || relay(other.1, other.0, delay));
                    relay(near, far, delay);
                });
            }
        });
        Self { port, is_over }
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let _ = to.set_nodelay(true);
    let (sender, pieces) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now() + delay, bytes[..count].to_vec())).is_err() {
            return;
        }
    }
}
