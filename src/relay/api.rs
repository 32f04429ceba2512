//! The API port, in front of tiny_http.
//!
//! tiny_http parses HTTP and nothing else: it would give every connection a thread and wait for ever. So it
//! listens on a private Unix socket, and only this file connects to it: once for every request, when that is
//! whole, of bounded size, and came in bounded time ([`request`]). The request carries the real caller's address.

pub(crate) mod caller;
pub(crate) mod connection;
pub(crate) mod parser;
pub(crate) mod refusal;
pub(crate) mod request;

use super::counters::{Counts, Limited, Port};
use super::fair_queue::FairQueue;
use super::listeners::{LeadsTo, SettingsPort};
use super::queue::Queue;
use super::state::{API, State};
use super::{Relay, Topic};
use crate::bucket::Bucket;
use crate::cidr::may_call;
use crate::fairness::{Candidate, first_to_go};
use crate::limits::{API_CONNECTIONS, API_UNLISTED, API_UNLISTED_INTERVAL, MESSAGES_A_TURN, MONITORS, SMALL_READ};
use crate::net::authority;
use crate::net::link::{Input, Link, LinkError};
use crate::net::pump::{Flow, Framing, pump};
use crate::net::reactor::{Close, Key, SocketMut};
use crate::net::service::Service;
use crate::net::stream::Stream;
use crate::network::Network;
use crate::throttle::and_more;
use caller::ApiCaller;
use connection::{Api, Backend, Phase, Standing};
use log::{error, info, warn};
use mio::net::TcpStream;
use refusal::{Refusal, Status};
use request::Step;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// What a client that asks first is told.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the one request begins that nobody needs a right for.
const HEALTH: &[u8] = b"GET /healthz ";

/// Who is connected to the API port.
#[derive(Default)]
pub(super) struct ApiPort {
    /// Controllers' connections; first the one that has gone longest without a complete request.
    pub(super) controllers: Queue,
    /// How many connections to the HTTP parser there are on their behalf.
    pub(super) backends: usize,
    /// Connections from addresses that may not call the API.
    unlisted: FairQueue,
    unlisted_rate: Bucket,
    /// Connections at the port of `metricslisten`.
    monitors: FairQueue,
    metrics_port: SettingsPort,
    /// Requests that were answered here.
    pub(super) refusals: Counts<Status>,
}

/// What is to be done with a Controller's connection after its turn.
enum Next {
    Wait,
    Again,
    /// What it gets is on its way; then close.
    Close,
    /// It has left.
    Drop,
}

impl ApiPort {
    /// All connections that belong to the API.
    pub(super) fn connections(&self) -> usize {
        self.controllers.len() + self.backends + self.unlisted.len() + self.monitors.len()
    }
}

impl Relay {
    fn api(&mut self, key: Key) -> Option<&mut Api> {
        match self.reactor.get_mut(key)?.0.state {
            State::Api(api) => Some(api),
            _ => None,
        }
    }

    pub(super) fn accept_controller(&mut self, stream: TcpStream, peer: SocketAddr) {
        let now = self.reactor.now;
        let unlisted = !may_call(self.setup.controllers.as_deref(), peer.ip());
        if unlisted && !self.admit_unlisted() {
            return self.log_unlisted(peer.ip());
        }
        let standing = if unlisted { Standing::Unlisted } else { Standing::Controller };
        if !unlisted && self.api.controllers.len() + self.reactor.closing_in(API) >= API_CONNECTIONS {
            self.evict_controller();
        }
        let Ok(local) = stream.local_addr() else { return };
        let Some(link) = self.controller_link(stream, peer) else { return };
        let Self { reactor, api, .. } = self;
        // Without a place in the reactor it is closed, and was never counted.
        let _ = reactor.add_with(link, |key| {
            let ticket = match unlisted {
                true => api.unlisted.join(key, peer.ip()),
                false => api.controllers.join(key),
            };
            State::Api(Box::new(Api::new(ApiCaller::of(peer, local), ticket, standing, now)))
        });
    }

    /// Opens the port of `metricslisten` if the settings name one and it is not open yet.
    pub(super) fn listen_for_monitors(&mut self) {
        let Self { setup, listeners, reactor, api, .. } = self;
        let Some(address) = setup.metrics_listen else { return };
        let (host, port, registry) = (Some(address.ip()), address.port(), reactor.registry());
        match api.metrics_port.open(listeners, host, port, LeadsTo::Monitors, registry) {
            Some(Ok(())) => info!("Metrics, status and health are served at http://{address}"),
            Some(Err(cause)) => error!(
                "{address} (`metricslisten` in the settings) could not be bound: {cause}; tried again every second"
            ),
            None => {}
        }
    }

    pub(super) fn accept_monitor(&mut self, stream: TcpStream, peer: SocketAddr) {
        let now = self.reactor.now;
        if let Some(other) = self.api.monitors.surplus(MONITORS) {
            self.close(other, Close::Now);
        }
        let Ok(local) = stream.local_addr() else { return };
        let link = self.monitor_link(stream, peer);
        let caller = ApiCaller { only_reads: true, ..ApiCaller::of(peer, local) };
        let Self { reactor, api, .. } = self;
        let _ = reactor.add_with(link, |key| {
            let ticket = api.monitors.join(key, peer.ip());
            State::Api(Box::new(Api::new(caller, ticket, Standing::Monitor, now)))
        });
    }

    /// Makes room: one that is only closing, or the one that has gone longest without a complete request.
    fn evict_controller(&mut self) {
        if self.reactor.abort_one_closing(API) {
            return;
        }
        let member = |(age, key)| {
            let socket = self.reactor.get(key)?;
            let State::Api(api) = socket.state else { return None };
            Some((Network::of(socket.link.peer.ip()), Candidate { rank: api.rank(), age, key }))
        };
        let members = self.api.controllers.iter().enumerate().filter_map(member).collect();
        let Some(&key) = first_to_go(members, 1).first() else { return };
        let Some(peer) = self.reactor.get(key).map(|socket| socket.link.peer) else { return };
        if let Some(unsaid) = self.listeners.evicted_controllers.may_say(self.reactor.now) {
            let more = and_more(unsaid);
            warn!(
                "{API_CONNECTIONS} API connections: the least recently active, from {peer}, is closed for a new one{more}"
            );
        }
        self.close(key, Close::Now);
    }

    /// Whether one more that may not call the API is told so. Makes room for it.
    ///
    /// A few are served that far; each costs a handshake, so all others are closed at once.
    fn admit_unlisted(&mut self) -> bool {
        let now = self.reactor.now;
        let most = API_UNLISTED_INTERVAL * API_UNLISTED as u32;
        if !self.api.unlisted_rate.try_fill(API_UNLISTED_INTERVAL, most, now) {
            self.counters.rate_limited.add(Limited::Api);
            return false;
        }
        if let Some(other) = self.api.unlisted.surplus(API_UNLISTED) {
            self.close(other, Close::Now);
        }
        true
    }

    fn log_unlisted(&mut self, ip: IpAddr) {
        let reason = "its address is not in `controllers`";
        if let Some(unsaid) = self.log.may_say(Topic::Refusal(Network::of(ip), reason), self.reactor.now) {
            warn!("API connection from {ip} refused: {reason}{}", and_more(unsaid));
        }
    }

    /// Its request did not come in time, nor another one for long, or it takes nothing of its answer.
    pub(super) fn controller_is_late(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Api(api) }, ctx)) = self.reactor.get_mut(key) else { return };
        if !api.is_idle() {
            return self.close(key, Close::Now);
        }
        if api.partial.is_some() && link.is_open() {
            // It is closed in any case.
            let refusal = Refusal::timed_out();
            let _ = link.send(&refusal.to_bytes(), ctx, now);
            self.api.refusals.add(refusal.status());
        }
        self.close(key, Close::Refuse);
    }

    /// Reads requests, hands on those that are complete.
    pub(super) fn serve_controller(&mut self, key: Key) {
        match self.read_requests(key) {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.reactor.again(key),
            Ok(Next::Close) => self.close(key, Close::Refuse),
            Ok(Next::Drop) => self.close(key, Close::Now),
            Err(fault) => {
                self.log_refused_certificate(key, &fault);
                self.close(key, Close::Now);
            }
        }
    }

    /// A client without the right certificate has been told so by TLS; people are told here.
    fn log_refused_certificate(&mut self, key: Key, fault: &LinkError) {
        let Some((reason, cause)) = authority::refusal(fault) else {
            return self.handshake_failed(key, Port::Api, fault);
        };
        let Some(ip) = self.reactor.get(key).map(|socket| socket.link.peer.ip()) else { return };
        self.counters.handshake_failures.add(Port::Api);
        if let Some(unsaid) = self.log.may_say(Topic::Refusal(Network::of(ip), reason), self.reactor.now) {
            warn!("API connection from {ip} refused: {reason}{cause}{}", and_more(unsaid));
        }
    }

    fn read_requests(&mut self, key: Key) -> Result<Next, LinkError> {
        let now = self.reactor.now;
        for _ in 0..MESSAGES_A_TURN {
            let Some((SocketMut { link, state: State::Api(api) }, ctx)) = self.reactor.get_mut(key) else {
                return Ok(Next::Wait);
            };
            let flushed = link.flush(&mut ctx.pool, now)?;
            if let Phase::Asking { backend, .. } = api.phase {
                self.ask_further(key)?;
                // There may be room for more of the answer.
                if flushed && self.reactor.get(backend).is_some_and(|socket| socket.link.may_read()) {
                    self.reactor.again(backend);
                }
                return Ok(Next::Wait);
            }
            if !flushed || !link.handshake(ctx, now)? {
                return Ok(Next::Wait);
            }
            if api.standing != Standing::Unlisted {
                link.trust();
            }
            match api.collector.next(&api.caller) {
                // Empty lines behind a request are no beginning of another.
                Step::Incomplete if api.collector.is_empty() => {}
                Step::Incomplete => drop(api.partial.get_or_insert(now)),
                Step::Continue => link.send(CONTINUE, ctx, now)?,
                Step::Refuse(refusal) => {
                    link.send(&refusal.to_bytes(), ctx, now)?;
                    self.api.refusals.add(refusal.status());
                    return Ok(Next::Close);
                }
                Step::Request { bytes, .. } if api.standing == Standing::Unlisted && !bytes.starts_with(HEALTH) => {
                    let ip = api.caller.ip;
                    let refusal = Refusal::not_a_controller(ip);
                    link.send(&refusal.to_bytes(), ctx, now)?;
                    self.api.refusals.add(refusal.status());
                    self.log_unlisted(ip);
                    return Ok(Next::Close);
                }
                Step::Request { bytes, last } => {
                    let last = last || api.standing == Standing::Unlisted;
                    if let Err(cause) = self.ask(key, bytes, last) {
                        return self.cannot_ask(key, &cause);
                    }
                    continue;
                }
            }
            let mut came = false;
            let got = link.receive(SMALL_READ, ctx, now, |bytes| {
                api.collector.push(bytes);
                came = true;
            })?;
            match got {
                Input::Data => {}
                _ if came => {}
                // The API has a buffer for each of its connections.
                Input::WouldBlock | Input::Starved => return Ok(Next::Wait),
                Input::Eof => return Ok(Next::Drop),
            }
        }
        Ok(Next::Again)
    }

    fn cannot_ask(&mut self, key: Key, cause: &io::Error) -> Result<Next, LinkError> {
        let now = self.reactor.now;
        let Some((SocketMut { link, .. }, ctx)) = self.reactor.get_mut(key) else { return Ok(Next::Wait) };
        let refusal = Refusal::unavailable(cause);
        link.send(&refusal.to_bytes(), ctx, now)?;
        self.api.refusals.add(refusal.status());
        Ok(Next::Close)
    }

    /// Hands a whole request to tiny_http, over a connection of its own.
    fn ask(&mut self, key: Key, rest: Vec<u8>, last: bool) -> io::Result<()> {
        let now = self.reactor.now;
        let stream = Stream::Unix(self.setup.parser.connect()?);
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let backend = self.reactor.add(Link::plain(stream, nobody, now), State::Backend(Backend { client: key }))?;
        self.api.backends += 1;
        let Self { reactor, api: port, .. } = self;
        let Some(State::Api(api)) = reactor.get_mut(key).map(|(socket, _)| socket.state) else { return Ok(()) };
        api.phase = Phase::Asking { backend, rest, last };
        (api.partial, api.active) = (None, now);
        if api.standing == Standing::Controller {
            let before = std::mem::replace(&mut api.ticket, port.controllers.join(key));
            port.controllers.leave(before);
        }
        // What goes wrong from here on shows when it is written to or read from again.
        let _ = self.ask_further(key);
        Ok(())
    }

    /// Hands on what of the request the backend has not taken yet.
    fn ask_further(&mut self, key: Key) -> Result<(), LinkError> {
        let now = self.reactor.now;
        let Some(Phase::Asking { backend, .. }) = self.api(key).map(|api| &api.phase) else { return Ok(()) };
        let backend = *backend;
        let Some((SocketMut { state: State::Api(api), .. }, backend, _)) = self.reactor.pair_mut(key, backend) else {
            return Ok(());
        };
        if let Phase::Asking { rest, .. } = &mut api.phase {
            let count = backend.link.write_through(rest, now)?;
            rest.drain(..count);
        }
        Ok(())
    }

    /// Brings an answer back to its Controller.
    pub(super) fn serve_backend(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some(State::Backend(Backend { client })) = self.reactor.get(key).map(|socket| socket.state) else { return };
        let client = *client;
        if self.ask_further(client).is_err() {
            return self.close(client, Close::Now);
        }
        let Some((backend, controller, ctx)) = self.reactor.pair_mut(key, client) else {
            return self.close(key, Close::Abort);
        };
        let pumped = pump((backend.link, Framing::None), (controller.link, Framing::None), ctx, now);
        if let State::Api(api) = controller.state {
            api.note_taken(pumped.payload, now);
        }
        match pumped.flow {
            Flow::Again => self.reactor.again(key),
            Flow::Starved(want) => self.reactor.wait_for_buffer(key, Some(want)),
            Flow::WouldBlock | Flow::Blocked => {}
            Flow::Eof => self.answered(client),
            Flow::SourceFailed(_) | Flow::SinkFailed(_) => self.close(client, Close::Now),
        }
    }

    /// The whole answer is on its way.
    fn answered(&mut self, client: Key) {
        let now = self.reactor.now;
        let Some(api) = self.api(client) else { return };
        let Phase::Asking { backend, last, .. } = std::mem::replace(&mut api.phase, Phase::Reading) else { return };
        api.active = now;
        self.close(backend, Close::Abort);
        if last { self.close(client, Close::Refuse) } else { self.reactor.again(client) }
    }

    /// A Controller's connection is closing, or gone: so is ours on its behalf.
    pub(super) fn controller_left(&mut self, api: Api) {
        match api.standing {
            Standing::Controller => drop(self.api.controllers.leave(api.ticket)),
            Standing::Unlisted => self.api.unlisted.leave(api.ticket),
            Standing::Monitor => self.api.monitors.leave(api.ticket),
        }
        if let Phase::Asking { backend, .. } = api.phase {
            self.close(backend, Close::Abort);
        }
    }
}
