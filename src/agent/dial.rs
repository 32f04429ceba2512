//! Lines, up to their passcode: look up, handshake, passcode, `AUTHORIZED`. Between the first two they are connected
//! ([`super::connect`]).
//!
//! Every failure ends in [`Agent::fail`]: the place rests for a while that grows, and the log says why.

use super::Agent;
use super::failure::Failure;
use super::names::{Answer, at_port};
use super::settings::Role;
use super::state::{Asked, Destination, Line, Place, ServiceId, State};
use crate::limits::{ASK_AGAIN, HELLO, RETRY_HERE, RETRY_LONGEST, UNDERWAY_OF_ALL};
use crate::net::framed::Framed;
use crate::net::link::{Input, LinkError};
use crate::net::marked::Marked;
use crate::net::reactor::{Close, Key};
use crate::throttle::{Throttle, and_more, is_within_budget};
use crate::wire::v1::{self, AUTHORIZED, PREAMBLE};
use crate::wire::v2::channel;
use crate::wire::v2::hello::{self, Hello, Parsed};
use log::{debug, info, warn};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// The same failure over and over is said this often: it may last for days.
const REMINDER: Duration = Duration::from_secs(300);

impl Agent {
    /// Tries the places that are due.
    pub(super) fn fill_places(&mut self) {
        let now = self.reactor.now;
        self.may_fill = false;
        if self.ending.is_some() {
            return;
        }
        let underway: usize = self.services.values().map(|service| service.pool.underway()).sum();
        let mut free = UNDERWAY_OF_ALL.saturating_sub(underway);
        // One place of each service, then one more of each, so that no service keeps the others waiting. The next time
        // it begins where it ended.
        let mut due = self.services_from(self.next_to_fill);
        while free > 0 && !due.is_empty() {
            due.retain(|&id| {
                let has_more = free > 0 && self.fill_place(id);
                if has_more {
                    free -= 1;
                    self.next_to_fill = id + 1;
                }
                has_more
            });
        }
        self.is_crowded = free == 0;
        let due = self.services.values().filter_map(|service| service.pool.next_due());
        if let Some(due) = due.filter(|&due| due > now).min() {
            self.reactor.wake_by(due);
        }
    }

    fn services_from(&self, first: ServiceId) -> Vec<ServiceId> {
        let ids = self.services.range(first..).chain(self.services.range(..first));
        ids.map(|(id, _)| *id).collect()
    }

    /// Begins to fill one place of a service. False: none is due.
    fn fill_place(&mut self, id: ServiceId) -> bool {
        let Some(service) = self.services.get_mut(&id) else { return false };
        let Some(slot) = service.pool.take_due(self.reactor.now) else { return false };
        service.asking.push(slot);
        self.names.ask(service.settings.first_hop());
        true
    }

    /// Addresses have been looked up, or could not be: the places that wait for them go on.
    pub(super) fn found_connectors(&mut self, answers: &HashMap<String, Answer>) {
        let mut found = Vec::new();
        for service in self.services.values_mut() {
            let hop = service.settings.first_hop();
            if let Some(answer) = answers.get(&hop.host) {
                let (service_id, port) = (service.id, hop.port);
                let slots = std::mem::take(&mut service.asking).into_iter();
                found.extend(slots.map(|slot| (Place { service: service_id, slot }, answer, port)));
            }
        }
        for (place, answer, port) in found {
            match answer {
                Ok(addresses) => self.dial(Destination::Connector(place), at_port(addresses, port)),
                Err(e) => self.fail(place, Failure::Name(copy(e))),
            }
        }
    }

    /// Goes on with the handshake and the passcode.
    pub(super) fn greet(&mut self, key: Key) {
        match self.greet_further(key) {
            Ok(None) => {}
            Ok(Some(greeted)) => self.authorized(key, greeted),
            Err(failure) => self.give_up(key, failure),
        }
    }

    /// What comes of it, once the Connector has taken the passcode.
    fn greet_further(&mut self, key: Key) -> Result<Option<Greeted>, Failure> {
        let now = self.reactor.now;
        let Some(State::Greeting { place, .. }) = self.reactor.get(key).map(|socket| socket.state) else {
            return Ok(None);
        };
        let Some(service) = self.services.get(&place.service) else { return Ok(None) };
        let passcode = service.settings.passcode.expose().as_bytes();
        let dev = service.tls.is_none();
        let calls = service.settings.role == Role::Listen;
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return Ok(None) };
        let State::Greeting { heard, asked, until, .. } = socket.state else { return Ok(None) };
        if asked.is_none() {
            match socket.link.handshake(ctx, now) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Failure::HandshakeCut),
                Err(fault) => return Err(Failure::Handshake(fault)),
            }
            let asks = match service.hello_again {
                Some(again) if now >= again => Asked::Hello(token()),
                _ if dev && now >= service.ask_again => Asked::Preamble,
                _ => Asked::Bare,
            };
            let said = match asks {
                Asked::Bare => passcode.to_vec(),
                Asked::Preamble => [PREAMBLE, passcode].concat(),
                Asked::Hello(token) => [passcode, &Framed::hello(calls, token).encode()[..]].concat(),
            };
            socket.link.send(&said, ctx, now).map_err(Failure::Broken)?;
            *asked = Some(asks);
        }
        loop {
            if let Some(Asked::Hello(token)) = *asked {
                match hello_behind(heard, token) {
                    Behind::Missing(0) => {}
                    Behind::Missing(missing) => {
                        *until = (*until).min(now + HELLO);
                        let got = socket.link.receive(missing, ctx, now, |message| heard.extend_from_slice(message));
                        match got.map_err(|_| Failure::NoHello)? {
                            Input::Data => continue,
                            Input::Eof if heard == AUTHORIZED => return Err(Failure::NoHello),
                            // A user who has said what looks like the beginning of one, and has ended.
                            Input::Eof => return Ok(Some(Greeted::Payload(heard.split_off(AUTHORIZED.len())))),
                            Input::WouldBlock | Input::Starved => {
                                let until = *until;
                                self.reactor.wake_by(until);
                                return Ok(None);
                            }
                        }
                    }
                    Behind::Hello(hello) if calls && !hello.calls => return Err(Failure::Public),
                    Behind::Hello(hello) => return Ok(Some(Greeted::Frames(hello))),
                    Behind::Payload => return Ok(Some(Greeted::Payload(heard.split_off(AUTHORIZED.len())))),
                }
            }
            let missing = answer(*asked, heard).len() - heard.len();
            let got = socket.link.receive(missing, ctx, now, |message| heard.extend_from_slice(message));
            let awaited = answer(*asked, heard);
            match got {
                // A refused passcode may show as a reset, when it was still on its way.
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(Failure::Refused { dev });
                }
                Err(LinkError::Truncated) | Ok(Input::Eof) => return Err(Failure::Refused { dev }),
                Err(fault) => return Err(Failure::Broken(fault)),
                Ok(_) if *heard == awaited && matches!(asked, Some(Asked::Hello(_))) => {}
                Ok(_) if *heard == awaited => return Ok(Some(Greeted::Plainly)),
                Ok(_) if !awaited.starts_with(heard) => return Err(Failure::NotAConnector),
                Ok(Input::Data) => {}
                Ok(Input::WouldBlock | Input::Starved) => return Ok(None),
            }
        }
    }

    fn authorized(&mut self, key: Key, greeted: Greeted) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        let State::Greeting { place, asked, heard, .. } = &*socket.state else { return };
        let is_marked = *asked == Some(Asked::Preamble) && heard.starts_with(PREAMBLE);
        let has_asked = matches!(asked, Some(Asked::Hello(_)));
        let (place, marked) = (*place, is_marked.then(Marked::new));
        let (framed, payload) = match greeted {
            Greeted::Plainly => (None, Vec::new()),
            Greeted::Payload(payload) => (None, payload),
            Greeted::Frames(hello) => {
                let end = if hello.calls { channel::Role::CallingAgent } else { channel::Role::Agent };
                (Some(Box::new(Framed::new(end, &hello))), Vec::new())
            }
        };
        let is_framed = framed.is_some();
        let address = socket.link.peer;
        socket.link.trust();
        *socket.state = State::Line(Line::new(place, marked, framed, now));
        self.note_version(place, has_asked, is_framed);
        let Some(service) = self.services.get_mut(&place.service) else { return };
        service.pool.authorize(place.slot);
        service.log.was_accepted = true;
        if let Some(interval) = service.settings.heartbeat {
            self.reactor.wake_by(now + interval);
        }
        if !std::mem::replace(&mut service.log.connected, true) && is_within_budget(now) {
            info!("{}Authorized by the Connector {} ({address})", service.label(), service.settings.connector);
        }
        // The first one shows the way to the others.
        self.may_fill = true;
        self.offer_line(place.service);
        self.reactor.again(key);
        if v1::beats(&payload, usize::MAX) == 0 && !payload.is_empty() {
            self.needed(key, payload);
        }
    }

    /// The Connector speaks this version. `has_asked`: to a hello; else we have said none.
    fn note_version(&mut self, place: Place, has_asked: bool, is_framed: bool) {
        let now = self.reactor.now;
        let Some(service) = self.services.get_mut(&place.service) else { return };
        let Some(again) = &mut service.hello_again else { return };
        service.knows_frames = is_framed;
        if is_framed {
            service.log.said_version = false;
            return;
        }
        if has_asked {
            *again = now + ASK_AGAIN;
        }
        service.pool.keep(service.settings.connections_v1.into(), now);
        if !std::mem::replace(&mut service.log.said_version, true) {
            let (label, connector) = (service.label(), &service.settings.connector);
            info!(
                "{label}The Connector {connector} speaks version 1 of the pipe protocol at this port; so does the agent"
            );
        }
    }

    /// A line that is not authorized yet has failed.
    pub(super) fn give_up(&mut self, key: Key, failure: Failure) {
        let now = self.reactor.now;
        let (place, asked, heard) = match self.reactor.close(key, Close::Now, None) {
            Some(State::Greeting { place, heard, asked, .. }) => (place, asked, heard),
            Some(State::Proxying { place, .. } | State::Dialling { to: Destination::Connector(place), .. }) => {
                (place, None, Vec::new())
            }
            _ => return,
        };
        let unknown = asked.filter(|asked| asked.is_unknown(&heard));
        // While it speaks frames with us, it refuses for another reason.
        let knows = self.services.get(&place.service).is_some_and(|it| it.knows_frames && it.pool.authorized() > 0);
        let unknown = unknown.filter(|asked| !(knows && matches!(asked, Asked::Hello(_))));
        if let (Some(asked), Failure::Refused { .. } | Failure::TooSlow | Failure::NoHello) = (unknown, &failure) {
            debug!("The Connector does not seem to know what came with the passcode; tried again without it");
            if let Some(service) = self.services.get_mut(&place.service) {
                match asked {
                    Asked::Hello(_) => service.hello_again = Some(now + ASK_AGAIN),
                    Asked::Bare | Asked::Preamble => service.ask_again = now + ASK_AGAIN,
                }
                service.pool.rest(place.slot, now);
            }
            self.may_fill = true;
            return;
        }
        let failure = match self.services.get_mut(&place.service) {
            Some(service) => {
                if let (Some(again), Some(Asked::Bare), Failure::Refused { .. }) =
                    (&mut service.hello_again, asked, &failure)
                {
                    // It was not for the hello that the one before was refused.
                    *again = (*again).min(now + RETRY_LONGEST);
                }
                let (authorized, wanted) = (service.pool.authorized(), service.pool.size());
                failure.explained(authorized, wanted, service.log.was_accepted)
            }
            None => failure,
        };
        self.fail(place, failure);
    }

    /// A place could not be filled: it is tried again later.
    pub(super) fn fail(&mut self, place: Place, failure: Failure) {
        let now = self.reactor.now;
        let Some(service) = self.services.get_mut(&place.service) else { return };
        let until = match failure.is_shortage() {
            true => service.pool.rest(place.slot, now + RETRY_HERE),
            false => service.pool.fail(place.slot, now),
        };
        // Others may wait for this one to be done.
        self.may_fill |= self.is_crowded;
        self.reactor.wake_by(until);
        if self.ending.is_some() {
            return;
        }
        service.figures.failed(&failure);
        service.log.connected &= service.pool.authorized() > 0;
        // A new kind of failure is worth saying at once.
        let kind = std::mem::discriminant(&failure);
        if service.log.last_failure.replace(kind) != Some(kind) && is_within_budget(now) {
            service.log.failures = Throttle::default();
        }
        if let Some(unsaid) = service.log.failures.may_say_after(REMINDER, now) {
            let pause = (until - now).as_secs_f32();
            let (label, connector) = (service.label(), &service.settings.connector);
            warn!("{label}Connector {connector}: {failure}. Next try in {pause:.1} s{}", and_more(unsaid));
        }
    }
}

/// A connection that has been let in.
enum Greeted {
    /// Version 1.
    Plainly,
    /// The same, and payload has come already.
    Payload(Vec<u8>),
    /// Version 2.
    Frames(Hello),
}

/// What stands behind `AUTHORIZED`.
enum Behind {
    /// So many bytes at least are missing before that can be said; 0: `AUTHORIZED` itself is not complete.
    Missing(usize),
    Hello(Hello),
    /// No hello: version 1.
    Payload,
}

fn hello_behind(heard: &[u8], token: [u8; 8]) -> Behind {
    let Some(behind) = heard.strip_prefix(AUTHORIZED) else { return Behind::Missing(0) };
    match hello::parse(behind) {
        Parsed::Part(missing) => Behind::Missing(missing),
        Parsed::Hello(hello) if hello.token == token && behind.len() == hello::LENGTH => Behind::Hello(hello),
        _ => Behind::Payload,
    }
}

/// No user of an older Connector can guess it, and be taken for the Connector.
fn token() -> [u8; 8] {
    // The low bits of a version 4 UUID are all random but two.
    Uuid::new_v4().as_u64_pair().1.to_be_bytes()
}

impl Asked {
    /// It may be what the Connector did not understand, to whom it was said and who has said no more than this.
    fn is_unknown(self, heard: &[u8]) -> bool {
        match self {
            Self::Bare => false,
            Self::Preamble => heard.is_empty(),
            Self::Hello(_) => heard.is_empty() || heard.starts_with(AUTHORIZED),
        }
    }
}

/// The same error for one more place.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// What the Connector has to say to the passcode, as far as it can be told from what was `heard`: one that does not know
/// the preamble may let us in all the same.
fn answer(asked: Option<Asked>, heard: &[u8]) -> Vec<u8> {
    let begins = asked == Some(Asked::Preamble) && heard.first() == PREAMBLE.first();
    if begins { [PREAMBLE, AUTHORIZED].concat() } else { AUTHORIZED.to_vec() }
}
