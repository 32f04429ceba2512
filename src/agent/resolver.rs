//! Looks a name up in a thread of its own, anew for each attempt: the loop never waits for DNS.
//!
//! One resolver for one target. Who asks while an answer is on its way gets that one.

use super::target::Target;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

/// What a name stands for now.
pub(super) type Answer = io::Result<Vec<SocketAddr>>;

/// Knows where one target is.
pub(super) struct Resolver {
    way: Way,
    /// Somebody waits for the answer.
    asked: bool,
}

enum Way {
    /// The target is an address: there is nothing to look up.
    Known(SocketAddr),
    Helper {
        questions: Sender<()>,
        answers: Receiver<Answer>,
    },
}

impl Resolver {
    /// For `target`; its helper thread wakes the loop when there is an answer. Errors: no thread can be had.
    pub(super) fn new(target: &Target, waker: &Arc<mio::Waker>) -> io::Result<Self> {
        let way = match target.address() {
            Some(address) => Way::Known(address),
            None => helper(target.clone(), Arc::clone(waker))?,
        };
        Ok(Self { way, asked: false })
    }

    /// Asks where the target is; [`Resolver::answer`] has it sooner or later.
    pub(super) fn ask(&mut self) {
        if let (Way::Helper { questions, .. }, false) = (&self.way, self.asked) {
            // A helper that is gone shows when its answer is fetched.
            let _ = questions.send(());
        }
        self.asked = true;
    }

    /// The answer, once, if there is one.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        if !self.asked {
            return None;
        }
        let answer = match &self.way {
            Way::Known(address) => Ok(vec![*address]),
            Way::Helper { answers, .. } => match answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => Err(io::Error::other("the helper thread has died")),
            },
        };
        self.asked = false;
        Some(answer)
    }
}

/// The thread ends when the resolver is dropped, after the lookup that it is in.
fn helper(target: Target, waker: Arc<mio::Waker>) -> io::Result<Way> {
    let (questions, asked) = channel();
    let (found, answers) = channel();
    thread::Builder::new().name("names".into()).spawn(move || {
        for () in asked {
            // A loop that is gone needs no answer, and cannot be woken.
            if found.send(target.look_up()).is_err() || waker.wake().is_err() {
                return;
            }
        }
    })?;
    Ok(Way::Helper { questions, answers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn resolve(target: &str) -> Answer {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut resolver = Resolver::new(&target.parse().unwrap(), &waker).unwrap();
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
