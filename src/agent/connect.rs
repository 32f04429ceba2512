//! Connections on their way: which addresses are tried, and when.
//!
//! An address that does not answer must not keep the next one waiting: to the Connector the next one is tried besides
//! after [`NEXT_ADDRESS`], IPv6 and IPv4 in turn, and the first to be connected wins (RFC 8305). To the local service, which
//! is near, one is tried after the other.

use super::Agent;
use super::failure::Failure;
use super::proxy::Next;
use super::settings::Security;
use super::state::{Destination, Place, State};
use crate::limits::{AUTHORIZATION, DIAL, HANDSHAKE_CHAIN, NEXT_ADDRESS};
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Close, Key};
use crate::net::stream::Stream;
use crate::net::tcp::{self, Local};
use crate::net::tls::Tls;
use rustls::client::UnbufferedClientConnection;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

impl Agent {
    /// Connects to one of `addresses`, of which there is at least one.
    pub(super) fn dial(&mut self, to: Destination, addresses: Vec<SocketAddr>) {
        let bind = self.bind_of(to);
        let fits = |address: &SocketAddr| bind.is_none_or(|local| local.fits(address));
        let (fit, others): (Vec<_>, Vec<_>) = in_turn(addresses).into_iter().partition(fits);
        match (fit.is_empty(), others.first()) {
            (true, Some(&address)) => {
                let error = io::Error::new(io::ErrorKind::AddrNotAvailable, "\"bind\" is of another family");
                self.not_reached(to, address, error);
            }
            _ => self.attempt(to, fit, false),
        }
    }

    /// Where connections go out, if that is given.
    fn bind_of(&self, to: Destination) -> Option<&Local> {
        match to {
            Destination::Connector(place) => self.services.get(&place.service)?.settings.bind.as_ref(),
            Destination::Local { .. } => None,
        }
    }

    /// Begins with the first of `addresses` that lets us. `besides`: others of the same destination may be under way.
    fn attempt(&mut self, to: Destination, addresses: Vec<SocketAddr>, besides: bool) {
        let now = self.reactor.now;
        let mut rest = addresses.into_iter();
        while let Some(address) = rest.next() {
            let until = now + DIAL;
            let is_race = matches!(to, Destination::Connector(_)) && !rest.as_slice().is_empty();
            let next = is_race.then_some(now + NEXT_ADDRESS);
            let state = State::Dialling { to, rest: rest.clone().collect(), next, besides, until };
            match self.begin(to, address).and_then(|link| self.reactor.add(link, state)) {
                Ok(key) => {
                    self.set_local(to, Some(key));
                    return self.reactor.wake_by(next.unwrap_or(until));
                }
                Err(e) if rest.as_slice().is_empty() => return self.exhausted(to, besides, address, e),
                Err(_) => {}
            }
        }
    }

    /// TLS comes when it is connected.
    fn begin(&self, to: Destination, address: SocketAddr) -> io::Result<Link> {
        let stream = Stream::Tcp(tcp::dial_from(self.bind_of(to), address)?);
        Ok(Link::plain(stream, address, self.reactor.now).dialling())
    }

    /// A connect is done, or has failed.
    pub(super) fn dial_further(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let State::Dialling { to, besides, .. } = *socket.state else { return };
        match (socket.link.is_connected(), to) {
            (Ok(false), _) => {}
            (Ok(true), Destination::Connector(place)) => {
                if besides {
                    self.abort_others(key, place);
                }
                self.connected(key, place);
            }
            (Ok(true), Destination::Local { service, line }) => self.reached_service(key, service, line),
            (Err(e), _) => self.dial_next(key, e),
        }
    }

    /// The Connector is there, or the proxy before it.
    fn connected(&mut self, key: Key, place: Place) {
        let now = self.reactor.now;
        let Some(service) = self.services.get(&place.service) else { return };
        let Some(proxy) = &service.settings.proxy else { return self.reached_connector(key, place) };
        let (words, stage) = proxy.begin(&service.settings.connector);
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return };
        *socket.state = State::Proxying { place, stage, heard: Vec::new(), until: now + AUTHORIZATION };
        match socket.link.send(&words, ctx, now) {
            Ok(()) => self.ask_proxy(key),
            Err(fault) => self.give_up(key, Failure::Broken(fault)),
        }
    }

    /// Goes on with the proxy.
    pub(super) fn ask_proxy(&mut self, key: Key) {
        match self.ask_proxy_further(key) {
            Ok(None) => {}
            Ok(Some(place)) => self.reached_connector(key, place),
            Err(failure) => self.give_up(key, failure),
        }
    }

    /// The place, once the proxy has connected it.
    fn ask_proxy_further(&mut self, key: Key) -> Result<Option<Place>, Failure> {
        let now = self.reactor.now;
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return Ok(None) };
        let State::Proxying { place, stage, heard, .. } = socket.state else { return Ok(None) };
        let Some(service) = self.services.get(&place.service) else { return Ok(None) };
        let settings = &service.settings;
        let Some(proxy) = &settings.proxy else { return Ok(None) };
        let failed = |problem: String| Failure::Proxy(proxy.target.clone(), problem);
        loop {
            match proxy.proceed(&settings.connector, *stage, heard).map_err(failed)? {
                Next::Connected => return Ok(Some(*place)),
                Next::Say(words, next) => {
                    *stage = next;
                    heard.clear();
                    socket.link.send(&words, ctx, now).map_err(Failure::Broken)?;
                }
                Next::Missing(missing) => {
                    let got = socket.link.receive(missing, ctx, now, |bytes| heard.extend_from_slice(bytes));
                    match got.map_err(|fault| failed(fault.to_string()))? {
                        Input::Data => {}
                        Input::Eof => return Err(failed("it closes the connection".to_owned())),
                        Input::WouldBlock | Input::Starved => return Ok(None),
                    }
                }
            }
        }
    }

    /// The Connector is there: it is greeted.
    fn reached_connector(&mut self, key: Key, place: Place) {
        let now = self.reactor.now;
        let tls = self.tls_of(place);
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return };
        let until = now + AUTHORIZATION;
        *socket.state = State::Greeting { place, heard: Vec::new(), asked: None, until };
        let begun = tls.map_err(LinkError::Io).and_then(|tls| {
            tls.into_iter().for_each(|tls| socket.link.secure(tls));
            socket.link.begin(ctx, now)
        });
        match begun {
            Ok(()) => self.greet(key),
            Err(fault) => self.give_up(key, Failure::Broken(fault)),
        }
    }

    fn tls_of(&self, place: Place) -> io::Result<Option<Tls>> {
        let Some(service) = self.services.get(&place.service) else { return Ok(None) };
        let (Some(config), Security::Tls { name, .. }) = (&service.tls, &service.settings.security) else {
            return Ok(None);
        };
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name.clone());
        Ok(Some(Tls::client(connection.map_err(io::Error::other)?, HANDSHAKE_CHAIN)))
    }

    /// An attempt has lasted long: it is over, or the next address is tried besides.
    pub(super) fn dial_is_slow(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        let State::Dialling { to, rest, next, besides, until } = socket.state else { return };
        if *until <= now {
            return self.dial_next(key, io::ErrorKind::TimedOut.into());
        }
        let (to, rest) = (*to, std::mem::take(rest));
        (*next, *besides) = (None, true);
        self.attempt(to, rest, true);
    }

    /// One address has failed: the next, if there is one.
    fn dial_next(&mut self, key: Key, error: io::Error) {
        let Some(address) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        let Some(State::Dialling { to, rest, besides, .. }) = self.reactor.close(key, Close::Abort, None) else {
            return;
        };
        self.set_local(to, None);
        if rest.is_empty() {
            self.exhausted(to, besides, address, error);
        } else {
            self.attempt(to, rest, besides);
        }
    }

    /// No address is left to be tried; one may still be under way.
    fn exhausted(&mut self, to: Destination, besides: bool, address: SocketAddr, error: io::Error) {
        let is_underway = match to {
            Destination::Connector(place) => besides && !self.dialled_for(place).is_empty(),
            Destination::Local { .. } => false,
        };
        if !is_underway {
            self.not_reached(to, address, error);
        }
    }

    fn dialled_for(&self, place: Place) -> Vec<Key> {
        self.reactor.keys(
            |socket| matches!(socket.state, State::Dialling { to: Destination::Connector(its), .. } if *its == place),
        )
    }

    /// One of those for `place` has won.
    fn abort_others(&mut self, winner: Key, place: Place) {
        for key in self.dialled_for(place).into_iter().filter(|&key| key != winner) {
            self.reactor.close(key, Close::Abort, None);
        }
    }

    fn not_reached(&mut self, to: Destination, address: SocketAddr, error: io::Error) {
        match to {
            Destination::Local { line, .. } => self.refused(line, &error),
            Destination::Connector(place) => self.fail(place, Failure::Connect(address, error)),
        }
    }
}

/// The addresses in the order in which the system prefers them, but the two families in turn.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|it| it.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_and_the_preferred_one_begins() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(in_turn(mixed), parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]));
        let old = parse(&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"]);
        assert_eq!(in_turn(old), parse(&["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]));
    }
}
