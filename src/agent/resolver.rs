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
    target: Target,
    /// `None`: the target is an address, and there is nothing to wait for.
    helper: Option<Helper>,
    /// Somebody waits for the answer.
    asked: bool,
}

/// A thread that looks the name up each time that it is asked.
type Helper = (Sender<()>, Receiver<Answer>);

impl Resolver {
    /// For `target`; its helper thread wakes the loop when there is an answer. Errors: no thread can be had.
    pub(super) fn new(target: &Target, waker: &Arc<mio::Waker>) -> io::Result<Self> {
        let needed = !target.is_address();
        let helper = needed.then(|| helper(target.clone(), Arc::clone(waker))).transpose()?;
        Ok(Self { target: target.clone(), helper, asked: false })
    }

    /// Asks where the target is; [`Resolver::answer`] has it sooner or later.
    pub(super) fn ask(&mut self) {
        if let (Some((questions, _)), false) = (&self.helper, self.asked) {
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
        let answer = match self.helper.as_ref().map(|(_, answers)| answers.try_recv()) {
            None => self.target.look_up(),
            Some(Ok(answer)) => answer,
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Err(TryRecvError::Disconnected)) => Err(io::Error::other("the helper thread has died")),
        };
        self.asked = false;
        Some(answer)
    }
}

/// The thread ends when the resolver is dropped, after the lookup that it is in.
fn helper(target: Target, waker: Arc<mio::Waker>) -> io::Result<Helper> {
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
    Ok((questions, answers))
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
