//! The local service: looked up and dialled when somebody comes, and not before.

use super::resolver::Answer;
use super::state::{First, State};
use super::{Agent, Near};
use crate::limits::{DIAL, SUMMON};
use crate::net::closing::Cause;
use crate::net::link::Link;
use crate::net::reactor::Key;
use crate::net::stream::Stream;
use crate::net::tcp;
use crate::throttle::and_more;
use log::warn;
use std::io;
use std::net::SocketAddr;

impl Agent {
    /// A free line is needed: the service is looked up.
    pub(super) fn summon(&mut self, key: Key, first: First) {
        let Near::Service(resolver) = &mut self.near else { return };
        resolver.ask();
        let until = self.reactor.now + SUMMON;
        let State::Free(mut line) = self.take_state(key) else { return };
        line.used = true;
        self.set_state(key, State::Summoning { line, first, local: None, until });
        self.reactor.wake_by(until);
    }

    /// The service's addresses have been looked up, or could not be.
    pub(super) fn found_service(&mut self, answer: Answer) {
        let waits = |state: &State| matches!(state, State::Summoning { local: None, .. });
        let lines = self.reactor.iter().filter(|(_, socket)| waits(&socket.state)).map(|(key, _)| key);
        for line in lines.collect::<Vec<Key>>() {
            match &answer {
                Ok(addresses) => self.connect(line, addresses.clone()),
                Err(e) => self.refused(line, e),
            }
        }
    }

    /// Connects to the first of `addresses` that lets us begin to.
    fn connect(&mut self, line: Key, addresses: Vec<SocketAddr>) {
        let now = self.reactor.now;
        let mut rest = addresses.into_iter();
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        while let Some(address) = rest.next() {
            let until = now + DIAL;
            let begun = tcp::dial(address).and_then(|stream| {
                let link = Link::plain(Stream::Tcp(stream), address, now).dialling();
                self.reactor.add(link, State::Connecting { line, rest: rest.clone().collect(), until })
            });
            match begun {
                Ok(key) => {
                    self.reactor.wake_by(until);
                    return self.set_local(line, Some(key));
                }
                Err(e) => error = e,
            }
        }
        self.refused(line, &error);
    }

    fn set_local(&mut self, line: Key, key: Option<Key>) {
        if let Some((socket, _)) = self.reactor.get_mut(line) {
            if let State::Summoning { local, .. } = &mut socket.state {
                *local = key;
            }
        }
    }

    /// The connect to the service is done, or has failed.
    pub(super) fn connect_further(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let State::Connecting { line, .. } = socket.state else { return };
        match socket.link.is_connected() {
            Ok(false) => {}
            Ok(true) => self.arrived(key, line),
            Err(e) => self.connect_next(key, e),
        }
    }

    /// One address has failed: the next, if there is one.
    pub(super) fn connect_next(&mut self, key: Key, error: io::Error) {
        let Some(State::Connecting { line, rest, .. }) = self.reactor.remove(key) else { return };
        self.set_local(line, None);
        if rest.is_empty() { self.refused(line, &error) } else { self.connect(line, rest) }
    }

    /// Nobody can serve who came: the line is closed, so that its user sees an end and not silence.
    pub(super) fn refused(&mut self, line: Key, error: &io::Error) {
        if let Some(unsaid) = self.log.refusals.may_say(self.reactor.now) {
            let service = self.settings.role.target();
            warn!("The local service {service} cannot be reached, a session is ended: {error}{}", and_more(unsaid));
        }
        self.end(line, Cause::Interrupted);
    }

    /// The service is there: it gets what has come for it, or the other end of the tunnel is told.
    fn arrived(&mut self, key: Key, line: Key) {
        self.set_state(key, State::Local { line });
        let State::Summoning { line: its, first, .. } = self.take_state(line) else {
            return self.end(key, Cause::Interrupted);
        };
        let now = self.reactor.now;
        match first {
            First::Payload(bytes) => {
                self.join(line, its, key);
                let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
                if socket.link.send(&bytes, desk, now).is_err() {
                    self.end_when_read(key);
                }
            }
            First::Call => match self.answer_call(line, its, key) {
                Ok(()) => self.reactor.again(line),
                Err(_) => self.end(line, Cause::Broken(line)),
            },
        }
    }
}
