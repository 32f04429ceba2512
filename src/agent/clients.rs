//! Local clients of a tunnel's listening end, up to their line.

use super::state::{Line, State, Task};
use super::target::Target;
use super::{Agent, Near, Topic};
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{ACCEPTS, HALF_CLOSED_CONTENDED, WAIT_FOR_LINE, WAITING_USERS};
use crate::net::link::{Input, Link};
use crate::net::reactor::{Close, Key, Socket};
use crate::net::service::Service;
use crate::net::session::Cause;
use crate::net::stream::Stream;
use crate::net::tcp;
use crate::network::Network;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Where clients connect to.
pub(super) struct Clients {
    /// `None`: the agent is ending.
    pub(super) listener: Option<TcpListener>,
    /// Clients that wait for a line.
    pub(super) waiting: usize,
}

impl Clients {
    /// Listens on the first address of `target` that can be listened on. Looking a name up may take a while.
    pub(super) fn listen(target: &Target, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in target.look_up()? {
            match tcp::listen(Some(address.ip()), address.port()) {
                Ok(mut listener) => {
                    registry.register(&mut listener, token, Interest::READABLE)?;
                    return Ok(Self { listener: Some(listener), waiting: 0 });
                }
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }
}

impl Agent {
    /// Takes in the clients that are there. True: there may be more, after the others have had their turn.
    ///
    /// Called on events, and once a second for those who had to wait outside.
    pub(super) fn accept_clients(&mut self) -> bool {
        for _ in 0..ACCEPTS {
            let Near::Clients(Clients { listener: Some(listener), .. }) = &self.near else { return false };
            match listener.accept() {
                Ok((stream, peer)) => self.take_in_client(stream, peer),
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) => {
                    let what = format_args!("accept failed, retried in one second: {e}");
                    self.log.warn(Topic::Accept, what, self.reactor.now);
                    return false;
                }
            }
        }
        true
    }

    fn take_in_client(&mut self, stream: TcpStream, peer: SocketAddr) {
        let now = self.reactor.now;
        let until = now + WAIT_FOR_LINE;
        self.make_room_for_client();
        let link = Link::plain(Stream::Tcp(stream), peer, now);
        if self.reactor.add(link, State::Waiting { until }).is_ok() {
            if let Near::Clients(clients) = &mut self.near {
                clients.waiting += 1;
            }
            // Half-closed sessions that only wait for a silent other end make room sooner now.
            self.reactor.wake_by(now + HALF_CLOSED_CONTENDED);
            self.offer_line();
        }
    }

    /// One more may wait; if too many do, one of those goes whose network has most.
    fn make_room_for_client(&mut self) {
        let waiting: Vec<_> = self.waiting_clients().collect();
        if waiting.len() >= WAITING_USERS {
            first_to_go(waiting, 1).into_iter().for_each(|key| self.close_client(key));
        }
    }

    /// Clients that wait, each with its network.
    fn waiting_clients(&self) -> impl Iterator<Item = (Network, Candidate<Instant, Key>)> {
        self.reactor.iter().filter_map(|(key, socket)| match socket.state {
            State::Waiting { until } => {
                Some((Network::of(socket.link.peer.ip()), Candidate { rank: 0, age: *until, key }))
            }
            _ => None,
        })
    }

    /// A client waits no longer.
    pub(super) fn client_has_left(&mut self) {
        if let Near::Clients(clients) = &mut self.near {
            clients.waiting -= 1;
        }
    }

    /// Gives clients that wait the lines that are free, those that have been here longest first: the Connector joins
    /// them to the other end in that order, too.
    pub(super) fn offer_line(&mut self) {
        if let Near::Service(_) = self.near {
            return;
        }
        while let (Some(client), Some(line)) = (self.next_client(), self.longest_free()) {
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

    fn next_client(&self) -> Option<Key> {
        self.waiting_clients().map(|(_, client)| (client.age, client.key)).min().map(|(_, key)| key)
    }

    fn longest_free(&self) -> Option<Key> {
        let free = self.reactor.iter().filter_map(|(key, socket)| match socket.state {
            State::Line(line) if is_fit(&socket) => Some((line.born, key)),
            _ => None,
        });
        free.min().map(|(_, key)| key)
    }

    /// A client has sent something, which waits, or has left.
    pub(super) fn look_after_client(&mut self, key: Key) {
        let Some((socket, ctx)) = self.reactor.get_mut(key) else { return };
        match socket.link.waiting(ctx) {
            Ok(Input::Data | Input::WouldBlock | Input::Starved) => {}
            Ok(Input::Eof) => self.end(key, Cause::Ended(key)),
            Err(fault) => self.end(key, Cause::Truncated(key, fault)),
        }
    }

    /// A client has waited for a line in vain.
    pub(super) fn close_client(&mut self, key: Key) {
        let what = format_args!("A client was closed: no connection to the Connector was free");
        self.log.warn(Topic::NoLine, what, self.reactor.now);
        self.close(key, Close::Now);
    }
}

/// The line is free, and can be sent something as far as anybody knows.
fn is_fit(Socket { link, state }: &Socket<'_, State>) -> bool {
    let is_free = matches!(state, State::Line(Line { task: Task::Free, .. }));
    is_free && link.is_flushed() && !link.has_hung_up()
}
