//! Looks a name up in a thread of its own, anew for each attempt: the loop never waits for DNS.
//!
//! One resolver for one target, and one lookup at a time. Who asks while an answer is on its way gets that one.

use super::target::Target;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

/// What a name stands for now.
pub(super) type Answer = io::Result<Vec<SocketAddr>>;

/// Knows where one target is.
pub(super) struct Resolver {
    target: Target,
    /// Wakes the loop when there is an answer.
    waker: Arc<mio::Waker>,
    /// Somebody waits for this answer.
    pending: Option<Receiver<Answer>>,
}

impl Resolver {
    pub(super) fn new(target: &Target, waker: &Arc<mio::Waker>) -> Self {
        Self { target: target.clone(), waker: Arc::clone(waker), pending: None }
    }

    /// Asks where the target is; [`Resolver::answer`] has it sooner or later.
    pub(super) fn ask(&mut self) {
        if self.pending.is_some() {
            return;
        }
        let (found, pending) = channel();
        self.pending = Some(pending);
        let target = self.target.clone();
        if target.is_address() {
            let _ = found.send(target.look_up());
            return;
        }
        let waker = Arc::clone(&self.waker);
        let look_up = move || {
            // A loop that is gone needs no answer, and cannot be woken.
            let _ = found.send(target.look_up()).is_ok() && waker.wake().is_ok();
        };
        // Where no thread can be had, that shows when the answer is fetched.
        let _ = thread::Builder::new().name("names".into()).spawn(look_up);
    }

    /// The answer, once, if there is one.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = match self.pending.as_ref()?.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("no thread can be had to look it up")),
        };
        self.pending = None;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn resolve(target: &str) -> Answer {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut resolver = Resolver::new(&target.parse().unwrap(), &waker);
        assert!(resolver.answer().is_none(), "an answer that nobody asked for");
        resolver.ask();
        resolver.ask();
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = loop {
            if let Some(answer) = resolver.answer() {
                break answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(resolver.answer().is_none(), "two answers to one question");
        answer
    }

    #[test]
    fn addresses_are_known_and_names_are_looked_up() {
        assert_eq!(resolve("[::1]:80").unwrap(), ["[::1]:80".parse().unwrap()]);
        let local = resolve("localhost:80").unwrap();
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback()));
    }
}
