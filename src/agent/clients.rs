//! Local clients of a tunnel's listening end, up to their line.

use super::Agent;
use super::service::{Clients, Topic};
use super::state::{Line, ServiceId, State, Task};
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{ACCEPTS, HALF_CLOSED_CONTENDED, WAIT_FOR_LINE, WAITING_USERS};
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Close, Key, Socket};
use crate::net::service::Service as _;
use crate::net::session::Cause;
use crate::net::stream::Stream;
use crate::network::Network;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

impl Agent {
    /// Takes in the clients that are there. True: there may be more, after the others have had their turn.
    ///
    /// Called on events, and once a second for those who had to wait outside.
    pub(super) fn accept_clients(&mut self, id: ServiceId) -> bool {
        for _ in 0..ACCEPTS {
            let Some(service) = self.services.get_mut(&id) else { return false };
            let Some(Clients { listener: Some(listener), retry, .. }) = &mut service.clients else { return false };
            *retry = false;
            match listener.accept() {
                Ok((stream, peer)) => self.take_in_client(id, stream, peer),
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) => {
                    *retry = true;
                    let what = format!("accept failed, retried in one second: {e}");
                    service.warn(Topic::Accept, what, self.reactor.now);
                    return false;
                }
            }
        }
        true
    }

    fn take_in_client(&mut self, service: ServiceId, stream: TcpStream, peer: SocketAddr) {
        let now = self.reactor.now;
        let until = now + WAIT_FOR_LINE;
        self.make_room_for_client(service);
        let link = Link::plain(Stream::Tcp(stream), peer, now);
        if self.reactor.add(link, State::Waiting { service, until }).is_ok() {
            if let Some(clients) = self.clients_mut(service) {
                clients.waiting += 1;
            }
            // Half-closed sessions that only wait for a silent other end make room sooner now.
            self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
            self.offer_line(service);
        }
    }

    /// One more may wait; if too many do, one of those goes whose network has most.
    fn make_room_for_client(&mut self, service: ServiceId) {
        let waiting: Vec<_> = self.waiting_clients(service).collect();
        if waiting.len() >= WAITING_USERS {
            first_to_go(waiting, 1).into_iter().for_each(|key| self.close_client(key));
        }
    }

    /// A service's clients that wait, each with its network.
    fn waiting_clients(&self, of: ServiceId) -> impl Iterator<Item = (Network, Candidate<Instant, Key>)> {
        self.reactor.iter().filter_map(move |(key, socket)| match socket.state {
            State::Waiting { service, until } if *service == of => {
                Some((Network::of(socket.link.peer.ip()), Candidate { rank: 0, age: *until, key }))
            }
            _ => None,
        })
    }

    fn clients_mut(&mut self, service: ServiceId) -> Option<&mut Clients> {
        self.services.get_mut(&service)?.clients.as_mut()
    }

    /// A client waits no longer.
    pub(super) fn client_has_left(&mut self, service: ServiceId) {
        if let Some(clients) = self.clients_mut(service) {
            clients.waiting -= 1;
        }
    }

    /// Gives clients that wait the lines that are free, those that have been here longest first: the Connector joins
    /// them to the other end in that order, too.
    pub(super) fn offer_line(&mut self, service: ServiceId) {
        if self.clients_mut(service).is_none_or(|clients| clients.waiting == 0) {
            return;
        }
        while let (Some(client), Some(line)) = (self.next_client(service), self.longest_free(service)) {
            // Its end may have come in this very turn, and not have had its own.
            if let Some((socket, _)) = self.reactor.get_mut(line) {
                socket.link.look_again();
            }
            self.read_free(line);
            if self.reactor.get(line).is_some_and(|socket| is_fit(&socket)) {
                self.call(line, client);
            }
        }
    }

    fn next_client(&self, service: ServiceId) -> Option<Key> {
        self.waiting_clients(service).map(|(_, client)| (client.age, client.key)).min().map(|(_, key)| key)
    }

    fn longest_free(&self, service: ServiceId) -> Option<Key> {
        let free = self.reactor.iter().filter_map(|(key, socket)| match socket.state {
            State::Line(line) if line.place.service == service && is_fit(&socket) => Some((line.born, key)),
            _ => None,
        });
        free.min().map(|(_, key)| key)
    }

    /// A client has sent something, which waits, or has left.
    pub(super) fn look_after_client(&mut self, key: Key) {
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return };
        // A reset leaves what came before it to be read, but nobody who would wait for an answer.
        if socket.link.is_reset() {
            return self.end(key, Cause::Truncated(key, LinkError::Io(io::ErrorKind::ConnectionReset.into())));
        }
        match socket.link.waiting(ctx) {
            Ok(Input::Data | Input::WouldBlock | Input::Starved) => {}
            Ok(Input::Eof) => self.end(key, Cause::Ended(key)),
            Err(fault) => self.end(key, Cause::Truncated(key, fault)),
        }
    }

    /// A client has waited for a line in vain.
    pub(super) fn close_client(&mut self, key: Key) {
        self.warn(key, Topic::NoLine, "A client was closed: no connection to the Connector was free");
        self.close(key, Close::Now);
    }
}

/// The line is free, and can be sent something as far as anybody knows.
fn is_fit(Socket { link, state }: &Socket<'_, State>) -> bool {
    let State::Line(Line { task: Task::Free, framed, .. }) = state else { return false };
    let is_leaving = framed.as_ref().is_some_and(|framed| framed.is_leaving() || framed.has_said_bye());
    !is_leaving && link.is_flushed() && !link.has_hung_up()
}
