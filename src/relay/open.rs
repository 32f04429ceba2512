//! Opening and closing mappings, as the control thread asks.

use super::Relay;
use super::command::{OpenError, Totals};
use super::listeners::LeadsTo;
use super::pipe::{Ends, Pipe, PipeKey, PipePort};
use super::state::{State, group_of};
use crate::mapping::{Kind, Mapping};
use crate::net::reactor::Close;
use crate::net::service::Service;
use crate::net::session::{Cause, Interruption, Party};
use log::info;
use std::io;

/// What ends the sessions of a mapping that is removed.
const REMOVED: Cause = Cause::Interrupted(Interruption::Removed);

impl Relay {
    /// Both ports, or nothing.
    pub(super) fn open(&mut self, mapping: Mapping) -> Result<(), OpenError> {
        let Some(pipe) = self.enlist(mapping) else { return Ok(()) };
        match self.bind(pipe).into_iter().next() {
            None => Ok(()),
            Some(error) => {
                self.forget(pipe);
                Err(error)
            }
        }
    }

    /// Whatever ports can be bound now; the others are tried again every second.
    pub(super) fn restore(&mut self, mapping: Mapping) -> Vec<OpenError> {
        self.enlist(mapping).map(|pipe| self.bind(pipe)).unwrap_or_default()
    }

    /// Closes the ports and every connection of the mapping.
    pub(super) fn close_mapping(&mut self, id: &str) {
        self.close_direct(id);
        let Some(pipe) = self.mappings.find(id) else { return };
        for key in self.reactor.keys(|socket| socket.state.pipe() == Some(pipe)) {
            let Some(socket) = self.reactor.get(key) else { continue };
            match socket.state {
                State::Rejected(_) => self.close_rejected(key),
                // Interrupted, and told so: neither close_notify nor, without TLS, FIN.
                state => {
                    let partner = state.partner();
                    self.record_end(key, partner, &REMOVED);
                    let how = if partner.is_some() { Close::Abort } else { Close::Now };
                    self.close(key, how);
                    partner.into_iter().for_each(|partner| self.close(partner, Close::Abort));
                }
            }
        }
        self.reactor.abort_closing(group_of(pipe));
        self.forget(pipe);
    }

    /// What is known of the loop itself.
    pub(super) fn totals(&self) -> Totals {
        let (inactive, agents, users) = self.mappings.counts();
        Totals {
            connections: self.connections(),
            most_connections: self.most_connections(),
            controllers: self.api.controllers.len(),
            buffers: self.reactor.ctx.pool.used(),
            most_buffers: self.reactor.ctx.pool.size(),
            pauses: self.listeners.paused_times(),
            inactive,
            agents,
            users,
            rejecting: self.rejected.len(),
            peers: self.broker.peers(),
            closing: self.reactor.closing(),
            traffic: self.mappings.traffic(),
            rates: self.meter.rates(),
            counters: self.counters,
            api_refusals: self.api.refusals,
            expiry: self.setup.tls.as_ref().and_then(|tls| tls.expiry),
        }
    }

    /// Tries the ports again that could not be bound.
    pub(super) fn bind_missing(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.listen_for_peers();
        let lacking = self.mappings.iter().filter(|(_, pipe)| pipe.status().bound != [true, true]);
        for key in lacking.map(|(key, _)| key).collect::<Vec<PipeKey>>() {
            if self.bind(key).is_empty() {
                if let Some(pipe) = self.mappings.get(key) {
                    info!("{}: its ports are bound now", pipe.name());
                }
            }
        }
    }

    /// `None`: a direct entry, which belongs to the broker.
    fn enlist(&mut self, mapping: Mapping) -> Option<PipeKey> {
        if let Mapping { id, kind: Kind::Direct { passkey }, .. } = mapping {
            self.open_direct(id, passkey);
            return None;
        }
        self.mappings.insert(mapping)
    }

    fn forget(&mut self, pipe: PipeKey) {
        let Some(mut pipe) = self.mappings.remove(pipe) else { return };
        for binding in pipe.bindings() {
            if let Some(number) = binding.listener.take() {
                self.listeners.close(number);
            }
        }
    }

    /// Binds those ports of the mapping that are not bound yet, and returns what went wrong.
    fn bind(&mut self, key: PipeKey) -> Vec<OpenError> {
        let mut left = self.ports_left();
        let Some(pipe) = self.mappings.get_mut(key) else { return Vec::new() };
        let second = match pipe.ends {
            Ends::Public { .. } => LeadsTo::Users(key),
            Ends::Private(_) => LeadsTo::Agents(PipePort { pipe: key, side: 1 }),
        };
        let first = LeadsTo::Agents(PipePort { pipe: key, side: 0 });
        let mut errors = Vec::new();
        for (binding, leads_to) in Pipe::bindings(pipe).into_iter().zip([first, second]) {
            if binding.listener.is_none() {
                let bound = match left {
                    // The last descriptors are for the API, files and connections.
                    0 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                    _ => self.listeners.bind(self.setup.listen, binding.port, leads_to, self.reactor.registry()),
                };
                match bound {
                    Ok(number) => {
                        binding.listener = Some(number);
                        left -= 1;
                    }
                    Err(cause) => errors.push(OpenError { port: binding.port, cause }),
                }
            }
        }
        errors
    }
}
