//! Looks names up in threads of their own, anew for each attempt: the loop never waits for DNS.
//!
//! One lookup of a name at a time, whoever asks; who asks while an answer is on its way gets that one. No more than
//! [`LOOKUPS`] threads; further names wait, the first to ask first.

use super::target::Target;
use crate::limits::LOOKUPS;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

/// What a name stands for now. The ports mean nothing.
pub(super) type Answer = io::Result<Vec<SocketAddr>>;

/// The same addresses with this port.
pub(super) fn at_port(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect()
}

/// Knows where names are.
pub(super) struct Names {
    /// Wakes the loop when there is an answer.
    waker: Arc<mio::Waker>,
    underway: Vec<(String, Receiver<Answer>)>,
    waiting: VecDeque<String>,
    /// Addresses, which need no thread.
    known: Vec<String>,
}

impl Names {
    pub(super) fn new(waker: Arc<mio::Waker>) -> Self {
        Self { waker, underway: Vec::new(), waiting: VecDeque::new(), known: Vec::new() }
    }

    /// Asks where the target is; [`Names::answers`] has it sooner or later, by its host.
    pub(super) fn ask(&mut self, target: &Target) {
        let host = &target.host;
        if target.is_address() {
            if !self.known.contains(host) {
                self.known.push(host.clone());
            }
        } else if !self.waiting.contains(host) && !self.underway.iter().any(|(name, _)| name == host) {
            self.waiting.push_back(host.clone());
            self.look_up_next();
        }
    }

    fn look_up_next(&mut self) {
        while self.underway.len() < LOOKUPS {
            let Some(host) = self.waiting.pop_front() else { return };
            let (found, pending) = channel();
            let (waker, target) = (Arc::clone(&self.waker), Target { host: host.clone(), port: 0 });
            let look_up = move || {
                // A loop that is gone needs no answer, and cannot be woken.
                let _ = found.send(target.look_up()).is_ok() && waker.wake().is_ok();
            };
            // Where no thread can be had, that shows when the answer is fetched.
            let _ = thread::Builder::new().name("names".into()).spawn(look_up);
            self.underway.push((host, pending));
        }
    }

    /// The answers that are there, each once.
    pub(super) fn answers(&mut self) -> HashMap<String, Answer> {
        if self.known.is_empty() && self.underway.is_empty() {
            return HashMap::new();
        }
        let known = std::mem::take(&mut self.known).into_iter();
        let look_up = |host: &String| Target { host: host.clone(), port: 0 }.look_up();
        let mut answers: HashMap<_, _> = known.map(|host| (host.clone(), look_up(&host))).collect();
        self.underway.retain(|(host, pending)| {
            let answer = match pending.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => Err(io::Error::other("no thread can be had to look it up")),
            };
            answers.insert(host.clone(), answer);
            false
        });
        self.look_up_next();
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn resolve(target: &str) -> Answer {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut names = Names::new(waker);
        let target: Target = target.parse().unwrap();
        assert!(names.answers().is_empty(), "an answer that nobody asked for");
        names.ask(&target);
        names.ask(&target);
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = loop {
            if let Some(answer) = names.answers().remove(&target.host) {
                break answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(names.answers().is_empty(), "two answers to one question");
        answer
    }

    #[test]
    fn addresses_are_known_and_names_are_looked_up() {
        assert_eq!(resolve("[::1]:80").unwrap(), ["[::1]:0".parse().unwrap()]);
        let local = resolve("localhost:80").unwrap();
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn more_names_than_threads_are_all_answered() {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut names = Names::new(waker);
        // Not valid as names, so that no server is asked.
        let hosts: Vec<String> = (0..LOOKUPS * 2).map(|number| format!("no name {number}")).collect();
        for host in &hosts {
            names.ask(&Target { host: host.clone(), port: 1 });
            assert!(names.underway.len() <= LOOKUPS);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut answered = 0;
        while answered < hosts.len() {
            answered += names.answers().values().filter(|answer| answer.is_err()).count();
            assert!(Instant::now() < deadline, "{answered} answers");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
