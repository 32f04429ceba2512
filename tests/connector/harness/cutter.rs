//! A relay in the middle of a connection that cuts it behind a certain byte.

use super::peer::reset_now;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Reset,
    Fin,
}

/// Where the next cut is.
#[derive(Clone, Copy)]
struct Armed {
    upstream: bool,
    /// Bytes that go through before it.
    left: usize,
    how: Cut,
}

/// Relays connections to its port to another port of 127.0.0.1.
pub struct Cutter {
    pub port: u16,
    pub target: u16,
    armed: Arc<Mutex<Option<Armed>>>,
    is_over: Arc<AtomicBool>,
}

impl Cutter {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (armed, is_over) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (shared, over) = (Arc::clone(&armed), Arc::clone(&is_over));
        thread::spawn(move || {
            for near in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let near = Arc::new(near.expect("a connection"));
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let far = Arc::new(far);
                for upstream in [true, false] {
                    let ends = if upstream { [&near, &far] } else { [&far, &near] }.map(Arc::clone);
                    let armed = Arc::clone(&shared);
                    thread::spawn(move || relay(&ends, upstream, &armed));
                }
            }
        });
        Self { port, target, armed, is_over }
    }

    /// The connection through which the byte number `left` from now on goes in this direction is cut in front of it.
    pub fn arm(&self, upstream: bool, left: usize, how: Cut) {
        *self.armed.lock().expect("no panic under this lock") = Some(Armed { upstream, left, how });
    }

    /// Nothing is to be cut any more. False: it was.
    pub fn disarm(&self) -> bool {
        self.armed.lock().expect("no panic under this lock").take().is_some()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn relay(ends: &[Arc<TcpStream>; 2], upstream: bool, armed: &Mutex<Option<Armed>>) {
    let [from, to] = ends;
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = match (&**from).read(&mut bytes) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(_) => return reset_now(to),
        };
        let cut = {
            let mut armed = armed.lock().expect("no panic under this lock");
            match &mut *armed {
                Some(it) if it.upstream == upstream && it.left < count => armed.take(),
                Some(it) if it.upstream == upstream => {
                    it.left -= count;
                    None
                }
                _ => None,
            }
        };
        let most = cut.map_or(count, |cut| cut.left);
        if (&**to).write_all(&bytes[..most]).is_err() {
            return reset_now(from);
        }
        match cut.map(|cut| cut.how) {
            None => {}
            Some(Cut::Reset) => return ends.iter().for_each(|end| reset_now(end)),
            Some(Cut::Fin) => return ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Write))),
        }
    }
}
