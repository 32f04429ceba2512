//! Ports that are bound, and accepting connections.
//!
//! Without descriptors, or with nothing but connections that are being served, nothing is accepted: new connections
//! wait in the kernel's accept queue, and their listener is remembered here (the events are edge-triggered) until
//! there is room again.

use super::eviction::Room;
use super::offer::Offer;
use super::pipe::{Pipe, PipeKey, Place};
use super::rate_limit::{Permit, Source};
use super::state::State;
use super::{FIRST_LISTENER, Relay};
use crate::limits::{ACCEPTS, FIRST_BYTE, GREETING, HANDSHAKE_CHAIN, HANDSHAKE_PIECES, SILENT_USERS};
use crate::net::closing::Closing;
use crate::net::link::Link;
use crate::net::reactor::{Key, Reactor};
use crate::net::stream::Stream;
use crate::net::tcp;
use crate::net::tls::Tls;
use crate::throttle::{Throttle, and_more};
use log::{info, warn};
use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use slab::Slab;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// All bound ports.
#[derive(Default)]
pub(super) struct Listeners {
    bound: Slab<Listener>,
    /// Numbers of listeners at which somebody may wait, while nothing is accepted.
    knocked: Vec<usize>,
    paused: bool,
    paused_times: u64,
    /// What the log has said of pauses, and of Controllers that were pushed out.
    pauses: Throttle,
    evictions: Throttle,
    pub(super) pushed_out: Throttle,
}

struct Listener {
    socket: TcpListener,
    leads_to: LeadsTo,
}

/// What a connection that is accepted here becomes.
#[derive(Clone, Copy)]
pub(super) enum LeadsTo {
    Agents(Place),
    Users(PipeKey),
    Controllers,
    Broker,
}

impl Listeners {
    /// Binds a port. Errors are the system's.
    pub(super) fn bind(
        &mut self,
        address: Option<IpAddr>,
        port: u16,
        leads_to: LeadsTo,
        reactor: &Reactor<State>,
    ) -> io::Result<usize> {
        let mut socket = tcp::listen(address, port)?;
        let entry = self.bound.vacant_entry();
        let number = entry.key();
        let token = Reactor::<State>::own_token(FIRST_LISTENER + number);
        reactor.registry().register(&mut socket, token, Interest::READABLE)?;
        entry.insert(Listener { socket, leads_to });
        Ok(number)
    }

    /// Gives the port up.
    pub(super) fn close(&mut self, number: usize) {
        self.bound.try_remove(number);
        self.knocked.retain(|&other| other != number);
    }

    pub(super) fn close_all_but_the_api(&mut self) {
        self.bound.retain(|_, listener| matches!(listener.leads_to, LeadsTo::Controllers));
        self.knocked.retain(|&number| self.bound.contains(number));
    }

    /// There may be room again.
    pub(super) fn resume(&mut self) {
        self.paused = false;
    }

    /// How often no more connections could be accepted.
    pub(super) fn paused_times(&self) -> u64 {
        self.paused_times
    }

    /// `peer` is the first that is closed for a new connection.
    pub(super) fn log_eviction(&mut self, peer: SocketAddr, most: usize, now: Instant) {
        if let Some(unsaid) = self.evictions.may_say(now) {
            let more = and_more(unsaid);
            warn!("The limit of {most} connections is reached: unserved ones are closed, from {peer} first{more}");
        }
    }

    fn pause(&mut self, number: usize) {
        self.paused_times += u64::from(!self.paused);
        self.paused = true;
        if !self.knocked.contains(&number) {
            self.knocked.push(number);
        }
    }
}

impl Relay {
    /// Takes in a bounded number of connections. True: there may be more.
    pub(super) fn accept(&mut self, number: usize) -> bool {
        for _ in 0..ACCEPTS {
            let Some(Listener { leads_to, .. }) = self.listeners.bound.get(number) else { return false };
            let leads_to = *leads_to;
            let victims = match self.room(leads_to) {
                Room::Free => Vec::new(),
                Room::After(victims) => victims,
                Room::None => {
                    self.out_of_room(&format!("the limit of {} connections is reached", self.setup.connections));
                    self.listeners.pause(number);
                    return false;
                }
            };
            let Some(listener) = self.listeners.bound.get(number) else { return false };
            match listener.socket.accept() {
                Ok((stream, peer)) => {
                    self.evict(victims);
                    self.take_in(stream, tcp::canonical(peer), leads_to);
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return false,
                    // The one who knocked is gone; the next may be there.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        self.out_of_room(&e.to_string());
                        self.listeners.pause(number);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// Ports at which somebody was left waiting and that may be tried again.
    pub(super) fn take_knocks(&mut self) -> Vec<usize> {
        if self.listeners.paused { Vec::new() } else { std::mem::take(&mut self.listeners.knocked) }
    }

    fn out_of_room(&mut self, why: &str) {
        if let Some(unsaid) = self.listeners.pauses.may_say(self.reactor.now) {
            warn!("No more connections are accepted until others end: {why}{}", and_more(unsaid));
        }
    }

    fn take_in(&mut self, stream: TcpStream, peer: SocketAddr, leads_to: LeadsTo) {
        match leads_to {
            LeadsTo::Agents(place) => self.take_in_stranger(stream, peer, place),
            LeadsTo::Users(pipe) => self.take_in_user(stream, peer, pipe),
            LeadsTo::Controllers => self.take_in_controller(stream, peer),
            LeadsTo::Broker => self.take_in_peer(stream, peer),
        }
    }

    /// A link to an agent or user: TLS, or plain in dev mode.
    pub(super) fn link(&self, stream: TcpStream, peer: SocketAddr) -> Option<Link> {
        self.link_with(self.setup.tls.as_ref().map(|tls| &tls.public), HANDSHAKE_PIECES, stream, peer)
    }

    /// The same to a Controller, which may have to show a certificate.
    pub(super) fn controller_link(&self, stream: TcpStream, peer: SocketAddr) -> Option<Link> {
        self.link_with(self.setup.tls.as_ref().map(|tls| &tls.api), HANDSHAKE_CHAIN, stream, peer).map(Link::for_api)
    }

    fn link_with(
        &self,
        tls: Option<&Arc<ServerConfig>>,
        most: usize,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<Link> {
        let (now, stream) = (self.reactor.now, Stream::Tcp(stream));
        let Some(config) = tls else { return Some(Link::plain(stream, peer, now)) };
        let connection = UnbufferedServerConnection::new(Arc::clone(config)).ok()?;
        Some(Link::tls(stream, Tls::server(connection, most), peer, now))
    }

    /// Adds a connection to the reactor, in the state that `state` makes for its key.
    pub(super) fn enter(&mut self, link: Link, state: impl FnOnce(&mut Self, Key) -> Option<State>) {
        let gone = State::Closing { closing: Closing::overdue(self.reactor.now), pipe: None };
        let Ok(key) = self.reactor.add(link, gone) else { return };
        match state(self, key) {
            Some(state) => self.set_state(key, state),
            None => drop(self.reactor.remove(key)),
        }
    }

    fn take_in_stranger(&mut self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let now = self.reactor.now;
        let Some(agents) = self.agents(place) else { return };
        let (source, surplus) = (Source::new(peer.ip(), agents.door.port), agents.surplus());
        let permit = self.rate_limit.admit(source, now);
        if permit == Permit::Never {
            let link = Link::plain(Stream::Tcp(stream), peer, now);
            return self.reject_at_once(link, source, Some(place.pipe));
        }
        if let Some(other) = surplus {
            self.push_out_unauthenticated(other);
        }
        let Some(link) = self.link(stream, peer) else { return };
        self.enter(link, |relay, key| {
            let ticket = relay.agents(place)?.strangers.join(key, peer.ip());
            let offer = Offer::default();
            Some(match permit {
                Permit::At(turn) => {
                    relay.reactor.wake_by(turn);
                    State::Deferred { place, ticket, turn, offer }
                }
                _ => State::Greeting { place, ticket, until: now + GREETING, offer },
            })
        });
    }

    fn take_in_user(&mut self, stream: TcpStream, peer: SocketAddr, pipe: PipeKey) {
        let Some(users) = self.pipes.get_mut(pipe).and_then(Pipe::users) else { return };
        if let Some(other) = users.silent.surplus(SILENT_USERS) {
            self.dismiss_user(other);
        }
        let Some(link) = self.link(stream, peer) else { return };
        self.enter(link, |relay, key| {
            let until = relay.reactor.now + FIRST_BYTE;
            let ticket = relay.users(pipe)?.silent.join(key, peer.ip());
            Some(State::Silent { pipe, ticket, until })
        });
    }

    /// Opens the API port.
    pub(super) fn listen_for_controllers(&mut self) -> io::Result<()> {
        let Self { setup, listeners, reactor, .. } = self;
        listeners.bind(setup.listen, setup.api_port, LeadsTo::Controllers, reactor)?;
        info!("The API listens on port {}", setup.api_port);
        Ok(())
    }
}
