//! Ports that are bound, and accepting connections.
//!
//! Without descriptors, or with nothing but connections that are being served, nothing is accepted: new connections
//! wait in the kernel's accept queue, and their listener is remembered here (the events are edge-triggered) until
//! there is room again.

use super::FIRST_LISTENER;
use super::pipe::{PipeKey, PipePort};
use crate::net::reactor::own_token;
use crate::net::tcp;
use crate::throttle::{Throttle, and_more};
use log::warn;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use slab::Slab;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// All bound ports.
#[derive(Default)]
pub(super) struct Listeners {
    bound: Slab<Listener>,
    /// Numbers of listeners at which somebody may wait, while nothing is accepted.
    pending: Vec<usize>,
    paused: bool,
    paused_times: u64,
    /// What the log has said of pauses, and of connections that were closed for others.
    pauses: Throttle,
    evictions: Throttle,
    pub(super) evicted_controllers: Throttle,
}

struct Listener {
    socket: TcpListener,
    leads_to: LeadsTo,
}

/// What a connection that is accepted here becomes.
#[derive(Clone, Copy)]
pub(super) enum LeadsTo {
    Agents(PipePort),
    Users(PipeKey),
    Controllers,
    Monitors,
    Broker,
}

/// A port that a key of the settings names: tried every second until it is open.
#[derive(Default)]
pub(super) struct SettingsPort {
    number: Option<usize>,
    complained: bool,
}

impl SettingsPort {
    /// Binds it unless it is bound. Some: it is bound now, or cannot be for the first time, which is for the log.
    pub(super) fn open(
        &mut self,
        listeners: &mut Listeners,
        address: Option<IpAddr>,
        port: u16,
        leads_to: LeadsTo,
        registry: &Registry,
    ) -> Option<io::Result<()>> {
        if self.number.is_some() {
            return None;
        }
        match listeners.bind(address, port, leads_to, registry) {
            Ok(number) => {
                self.number = Some(number);
                Some(Ok(()))
            }
            Err(cause) => (!std::mem::replace(&mut self.complained, true)).then_some(Err(cause)),
        }
    }
}

impl Listeners {
    /// Binds a port. Errors are the system's.
    pub(super) fn bind(
        &mut self,
        address: Option<IpAddr>,
        port: u16,
        leads_to: LeadsTo,
        registry: &Registry,
    ) -> io::Result<usize> {
        let mut socket = tcp::listen(address, port)?;
        let entry = self.bound.vacant_entry();
        let number = entry.key();
        registry.register(&mut socket, own_token(FIRST_LISTENER + number), Interest::READABLE)?;
        entry.insert(Listener { socket, leads_to });
        Ok(number)
    }

    /// How many ports are bound.
    pub(super) fn count(&self) -> usize {
        self.bound.len()
    }

    /// Gives the port up.
    pub(super) fn close(&mut self, number: usize) {
        self.bound.try_remove(number);
        self.pending.retain(|&other| other != number);
    }

    pub(super) fn close_all_but_the_api(&mut self) {
        self.bound.retain(|_, listener| matches!(listener.leads_to, LeadsTo::Controllers | LeadsTo::Monitors));
        self.pending.retain(|&number| self.bound.contains(number));
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

    /// What a connection at listener `number` becomes.
    pub(super) fn leads_to(&self, number: usize) -> Option<LeadsTo> {
        Some(self.bound.get(number)?.leads_to)
    }

    /// The next connection at listener `number`.
    pub(super) fn accept(&self, number: usize) -> io::Result<(TcpStream, SocketAddr)> {
        let listener = self.bound.get(number).ok_or(ErrorKind::WouldBlock)?;
        listener.socket.accept().map(|(stream, peer)| (stream, tcp::canonical(peer)))
    }

    /// Listeners at which somebody was left waiting and that may be tried again.
    pub(super) fn take_pending(&mut self) -> Vec<usize> {
        if self.paused { Vec::new() } else { std::mem::take(&mut self.pending) }
    }

    /// Nothing is accepted at listener `number` until there may be room again.
    pub(super) fn pause(&mut self, number: usize, why: &str, now: Instant) {
        if let Some(unsaid) = self.pauses.may_say(now) {
            warn!("No more connections are accepted until others end: {why}{}", and_more(unsaid));
        }
        self.paused_times += u64::from(!self.paused);
        self.paused = true;
        if !self.pending.contains(&number) {
            self.pending.push(number);
        }
    }
}
