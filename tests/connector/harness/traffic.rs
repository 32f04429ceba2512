//! Traffic that goes on beside a test, and visitors that want to be served now.

use super::{Daemon, Heard, Mapping, PATIENCE, Peer};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sends and gets back until it is told to stop; keeps the longest time that an answer took, in milliseconds.
pub fn ping(user: &Peer, echo: impl Fn(&[u8]), stop: &AtomicBool, longest: &AtomicU64) {
    for count in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (start, bytes) = (Instant::now(), count.to_le_bytes());
        user.send(&bytes);
        echo(&bytes);
        user.expect(&bytes);
        longest.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Heartbeats, five a second, while `beating`.
pub fn beat(heartbeat: impl Fn(), beating: &AtomicBool) {
    // So many at most, so that a failure elsewhere ends the test.
    for _ in 0..200 {
        heartbeat();
        thread::sleep(Duration::from_millis(200)); // the pause between two
        if !beating.load(Ordering::Relaxed) {
            break;
        }
    }
}

/// An agent and a user that come now, and talk.
pub fn visit(daemon: &Daemon, mapping: &Mapping) -> io::Result<()> {
    let agent = daemon.dial(mapping.ports[0]).connect()?;
    agent.try_send(mapping.passcodes[0].as_bytes(), PATIENCE)?;
    hear(&agent, b"AUTHORIZED")?;
    let user = daemon.dial(mapping.ports[1]).connect()?;
    user.try_send(b"question", PATIENCE)?;
    hear(&agent, b"question")?;
    agent.try_send(b"answer", PATIENCE)?;
    hear(&user, b"answer")
}

/// A user of the agent's service.
pub fn call(daemon: &Daemon, mapping: &Mapping) -> io::Result<()> {
    let user = daemon.dial(mapping.ports[1]).connect()?;
    user.try_send(b"question", PATIENCE)?;
    hear(&user, b"question")
}

fn hear(peer: &Peer, expected: &[u8]) -> io::Result<()> {
    match peer.hear(PATIENCE) {
        Heard::Message(message) if message == expected => Ok(()),
        Heard::Silence => Err(ErrorKind::TimedOut.into()),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Stops what goes on beside a test, also if the test fails.
pub struct StopAtLast<'a>(pub &'a AtomicBool);

impl Drop for StopAtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
