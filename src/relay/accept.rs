//! Accepting connections, and what they begin as.

use super::counters::{Limited, Refused};
use super::eviction::Room;
use super::listeners::LeadsTo;
use super::pipe::{PipeKey, PipePort};
use super::rate_limit::{Permit, Source};
use super::state::{Stage, State, Unauthenticated, User};
use super::{Relay, Topic};
use crate::limits::{
    ACCEPTS, AUTHENTICATION, FIRST_BYTE, HANDSHAKE_CHAIN, HANDSHAKE_PIECES, PROXY_HEADER, SILENT_USERS,
};
use crate::net::link::Link;
use crate::net::stream::Stream;
use crate::net::tls::Tls;
use crate::network::Network;
use crate::throttle::and_more;
use crate::wire::passcode::Offer;
use log::{info, warn};
use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

impl Relay {
    /// Takes in a bounded number of connections. True: there may be more.
    pub(super) fn accept(&mut self, number: usize) -> bool {
        for _ in 0..ACCEPTS {
            let Some(leads_to) = self.listeners.leads_to(number) else { return false };
            let victims = match self.room(leads_to) {
                Room::Free => Vec::new(),
                Room::After(victims) => victims,
                Room::None => {
                    let why = format!("the limit of {} connections is reached", self.most_connections());
                    self.listeners.pause(number, &why, self.reactor.now);
                    return false;
                }
            };
            match self.listeners.accept(number) {
                Ok((stream, peer)) => {
                    self.evict(victims);
                    match leads_to {
                        LeadsTo::Agents(place) => self.accept_agent(stream, peer, place),
                        LeadsTo::Users(pipe) => self.accept_user(stream, peer, pipe),
                        LeadsTo::Controllers => self.accept_controller(stream, peer),
                        LeadsTo::Monitors => self.accept_monitor(stream, peer),
                        LeadsTo::Broker => self.accept_peer(stream, peer),
                    }
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return false,
                    // That one is gone; the next may be there.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        self.listeners.pause(number, &e.to_string(), self.reactor.now);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// A link to an agent or user: TLS, or plain in dev mode.
    fn link(&self, stream: TcpStream, peer: SocketAddr) -> Option<Link> {
        self.link_with(self.setup.tls.as_ref().map(|tls| &tls.public), HANDSHAKE_PIECES, stream, peer)
    }

    /// The same to a Controller, which may have to show a certificate.
    pub(super) fn controller_link(&self, stream: TcpStream, peer: SocketAddr) -> Option<Link> {
        self.link_with(self.setup.tls.as_ref().map(|tls| &tls.api), HANDSHAKE_CHAIN, stream, peer).map(Link::for_api)
    }

    /// To whoever reads metrics: plain in every mode.
    pub(super) fn monitor_link(&self, stream: TcpStream, peer: SocketAddr) -> Link {
        Link::plain(Stream::Tcp(stream), peer, self.reactor.now).for_api()
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

    fn accept_agent(&mut self, stream: TcpStream, peer: SocketAddr, place: PipePort) {
        let now = self.reactor.now;
        let Some(agents) = self.mappings.agents(place) else { return };
        let (source, surplus) = (Source::new(peer.ip(), agents.binding.port), agents.surplus());
        let permit = self.rate_limit.admit(source, now);
        if permit != Permit::Now {
            self.counters.rate_limited.add(Limited::Connections);
        }
        if permit == Permit::Never {
            let link = Link::plain(Stream::Tcp(stream), peer, now);
            return self.reject_at_once(link, source, Some(place.pipe));
        }
        if let Some(other) = surplus {
            self.authentication_failed(other);
        }
        let Some(link) = self.link(stream, peer) else { return };
        let (is_deferred, until) = match permit {
            Permit::At(turn) => (true, turn),
            _ => (false, now + AUTHENTICATION),
        };
        if is_deferred {
            self.reactor.wake_by(until);
        }
        let Some(agents) = self.mappings.agents(place) else { return };
        // Without a place in the reactor it is closed, and was never counted.
        let _ = self.reactor.add_with(link, |key| {
            let ticket = agents.unauthenticated.join(key, peer.ip());
            State::Unauthenticated(Unauthenticated { place, ticket, offer: Offer::default(), is_deferred, until })
        });
    }

    fn accept_user(&mut self, stream: TcpStream, peer: SocketAddr, pipe: PipeKey) {
        let now = self.reactor.now;
        let is_proxied = self.setup.trust_proxy.iter().any(|range| range.contains(peer.ip()));
        if !is_proxied && !self.is_allowed(pipe, peer) {
            return;
        }
        if let Some(other) = self.mappings.users(pipe).and_then(|users| users.silent.surplus(SILENT_USERS)) {
            self.close_user(other);
        }
        let is_plain = self.mappings.get(pipe).is_some_and(|pipe| pipe.options.has_plain_users());
        let link = match is_plain {
            true => Some(Link::plain(Stream::Tcp(stream), peer, now)),
            false => self.link(stream, peer).map(Link::with_server_name),
        };
        let (Some(link), Some(users)) = (link, self.mappings.users(pipe)) else { return };
        let _ = self.reactor.add_with(link, |key| {
            let ticket = users.silent.join(key, peer.ip());
            let stage = match is_proxied {
                true => Stage::Proxied { ticket, until: now + PROXY_HEADER },
                false => Stage::Silent { ticket, until: now + FIRST_BYTE },
            };
            State::User(User { pipe, network: Network::of(peer.ip()), called: None, is_nobody: false, stage })
        });
    }

    /// Whether the user `peer` may use the mapping. If not, the log says so.
    pub(super) fn is_allowed(&mut self, key: PipeKey, peer: SocketAddr) -> bool {
        let Some(pipe) = self.mappings.get(key) else { return false };
        if pipe.options.admits(peer.ip()) {
            return true;
        }
        self.counters.refused.add(Refused::Allow);
        if let Some(unsaid) = self.log.may_say(Topic::NotAllowed(pipe.port(1)), self.reactor.now) {
            let (place, more) = (self.mappings.place(PipePort { pipe: key, side: 1 }), and_more(unsaid));
            warn!("{place}: user {peer} refused, its address is not in `allow`{more}");
        }
        false
    }

    /// Opens the API port.
    pub(super) fn listen_for_controllers(&mut self) -> io::Result<()> {
        let Self { setup, listeners, reactor, .. } = self;
        listeners.bind(setup.listen, setup.api_port, LeadsTo::Controllers, reactor.registry())?;
        info!("The API listens on port {}", setup.api_port);
        Ok(())
    }
}
