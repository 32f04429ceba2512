//! Lines, up to their passcode: look up, handshake, passcode, `AUTHORIZED`. Between the first two they are connected
//! ([`super::connect`]).
//!
//! Every failure ends in [`Agent::fail`]: the place rests for a while that grows, and the log says why.

use super::Agent;
use super::failure::Failure;
use super::names::{Answer, at_port};
use super::state::{Destination, Line, Place, ServiceId, State};
use crate::limits::{ASK_AGAIN, RETRY_HERE, UNDERWAY_OF_ALL};
use crate::net::link::{Input, LinkError};
use crate::net::marked::Marked;
use crate::net::reactor::{Close, Key};
use crate::throttle::{Throttle, and_more, is_within_budget};
use crate::wire::v1::{AUTHORIZED, PREAMBLE};
use log::{debug, info, warn};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

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
            Ok(false) => {}
            Ok(true) => self.authorized(key),
            Err(failure) => self.give_up(key, failure),
        }
    }

    /// True: the Connector has taken the passcode.
    fn greet_further(&mut self, key: Key) -> Result<bool, Failure> {
        let now = self.reactor.now;
        let Some(State::Greeting { place, .. }) = self.reactor.get(key).map(|socket| socket.state) else {
            return Ok(false);
        };
        let Some(service) = self.services.get(&place.service) else { return Ok(false) };
        let passcode = service.settings.passcode.expose().as_bytes();
        let dev = service.tls.is_none();
        let asks = dev && now >= service.ask_again;
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return Ok(false) };
        let State::Greeting { heard, asked, .. } = socket.state else { return Ok(false) };
        if asked.is_none() {
            match socket.link.handshake(ctx, now) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Failure::HandshakeCut),
                Err(fault) => return Err(Failure::Handshake(fault)),
            }
            let said = if asks { [PREAMBLE, passcode].concat() } else { passcode.to_vec() };
            socket.link.send(&said, ctx, now).map_err(Failure::Broken)?;
            *asked = Some(asks);
        }
        loop {
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
                Ok(_) if *heard == awaited => return Ok(true),
                Ok(_) if !awaited.starts_with(heard) => return Err(Failure::NotAConnector),
                Ok(Input::Data) => {}
                Ok(Input::WouldBlock | Input::Starved) => return Ok(false),
            }
        }
    }

    fn authorized(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        let State::Greeting { place, asked, heard, .. } = &*socket.state else { return };
        let (place, marked) = (*place, (*asked == Some(true) && heard.starts_with(PREAMBLE)).then(Marked::new));
        let address = socket.link.peer;
        socket.link.trust();
        *socket.state = State::Line(Line::new(place, marked, now));
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
    }

    /// A line that is not authorized yet has failed.
    pub(super) fn give_up(&mut self, key: Key, failure: Failure) {
        let now = self.reactor.now;
        let (place, is_unknown) = match self.reactor.close(key, Close::Now, None) {
            Some(State::Proxying { place, .. }) => (place, false),
            Some(State::Greeting { place, heard, asked, .. }) => (place, asked == Some(true) && heard.is_empty()),
            Some(State::Dialling { to: Destination::Connector(place), .. }) => (place, false),
            _ => return,
        };
        if is_unknown && matches!(failure, Failure::Refused { .. } | Failure::TooSlow) {
            debug!("The Connector does not seem to know the preamble of dev mode; tried again without it");
            if let Some(service) = self.services.get_mut(&place.service) {
                service.ask_again = now + ASK_AGAIN;
                service.pool.rest(place.slot, now);
            }
            self.may_fill = true;
            return;
        }
        let failure = match self.services.get(&place.service) {
            Some(service) => {
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

/// The same error for one more place.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// What the Connector has to say to the passcode, as far as it can be told from what was `heard`: one that does not know
/// the preamble may let us in all the same.
fn answer(asked: Option<bool>, heard: &[u8]) -> Vec<u8> {
    let begins = asked == Some(true) && heard.first() == PREAMBLE.first();
    if begins { [PREAMBLE, AUTHORIZED].concat() } else { AUTHORIZED.to_vec() }
}
