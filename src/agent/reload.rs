//! Other services from now on: those that have not changed are left alone, with their sessions.
//!
//! All or nothing: listeners are bound before anything else is done, and one that cannot be leaves all as it was.

use super::error::StartError;
use super::plan::Plan;
use super::service::{Clients, Service};
use super::state::ServiceId;
use super::{Agent, CLIENTS};
use crate::net::reactor::{Close, own_token};
use crate::net::service::Service as _;
use crate::net::session::{Cause, Party as _};
use log::{error, info};
use mio::Interest;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Whose listener a new service gets.
enum Listener {
    /// It has none: it makes a local service reachable.
    None,
    /// One that has just been bound.
    Bound(Clients),
    /// That of a service which ends, on the same address.
    Of(ServiceId),
}

impl Agent {
    /// Takes over what SIGHUP has found.
    pub(super) fn reload(&mut self, plans: Vec<Plan>) {
        if self.ending.is_some() {
            return;
        }
        match self.take_over(plans) {
            Ok(report) => info!("Reloaded, {report}"),
            Err(e) => error!("Reload failed, nothing changed: {e}"),
        }
        self.supervisor.ready();
    }

    /// Ends the services that are not in `plans` as they are, and begins those that are new there.
    pub(super) fn take_over(&mut self, plans: Vec<Plan>) -> Result<String, StartError> {
        let (kept, fresh) = self.compare(plans);
        let leaving: Vec<ServiceId> = self.services.keys().copied().filter(|id| !kept.contains(id)).collect();
        let listeners = self.listeners(&fresh, &leaving)?;
        let names: HashSet<Option<Arc<str>>> = fresh.iter().map(|plan| plan.settings.name.clone()).collect();
        let changed = leaving.iter().filter(|id| names.contains(&self.services[id].settings.name)).count();
        let (added, removed) = (fresh.len() - changed, leaving.len() - changed);
        let mut left = BTreeMap::new();
        for id in leaving {
            left.extend(self.remove_service(id).map(|clients| (id, clients)));
        }
        for (plan, listener) in fresh.into_iter().zip(listeners) {
            let clients = match listener {
                Listener::None => None,
                Listener::Bound(clients) => Some(clients),
                Listener::Of(id) => left.remove(&id),
            };
            self.add_service(plan, clients)?;
        }
        self.may_fill = true;
        Ok(format!("services: {added} added, {removed} removed, {changed} changed, {} unchanged", kept.len()))
    }

    /// The services that stay as they are, and the plans that are new.
    fn compare(&self, plans: Vec<Plan>) -> (HashSet<ServiceId>, Vec<Plan>) {
        let there: BTreeMap<_, _> = self.services.values().map(|service| (&service.settings.name, service)).collect();
        let mut kept = HashSet::new();
        let is_new = |plan: &Plan| match there.get(&plan.settings.name) {
            Some(service) if service.settings == plan.settings => !kept.insert(service.id),
            _ => true,
        };
        let fresh = plans.into_iter().filter(is_new).collect();
        (kept, fresh)
    }

    /// A listener for each of `fresh`. Errors: one cannot be had.
    fn listeners(&self, fresh: &[Plan], leaving: &[ServiceId]) -> Result<Vec<Listener>, StartError> {
        let mut taken = HashSet::new();
        let mut listener = |plan: &Plan| {
            if plan.listen.is_empty() {
                return Ok(Listener::None);
            }
            let listens_there = |id: &&ServiceId| {
                let clients = self.services[*id].clients.as_ref();
                !taken.contains(*id) && clients.is_some_and(|clients| plan.listen.contains(&clients.address))
            };
            if let Some(id) = leaving.iter().find(listens_there).copied() {
                taken.insert(id);
                return Ok(Listener::Of(id));
            }
            let bound = Clients::listen(&plan.listen);
            bound.map(Listener::Bound).map_err(|cause| StartError::listen(&plan.settings, cause))
        };
        fresh.iter().map(&mut listener).collect()
    }

    fn add_service(&mut self, plan: Plan, mut clients: Option<Clients>) -> Result<(), StartError> {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(listener) = clients.as_mut().and_then(|clients| clients.listener.as_mut()) {
            let registered = self.reactor.registry().register(listener, own_token(CLIENTS + id), Interest::READABLE);
            registered.map_err(|cause| StartError::listen(&plan.settings, cause))?;
        }
        let service = Service::new(id, plan, clients, self.reactor.now);
        self.services.insert(id, Box::new(service));
        Ok(())
    }

    /// Ends a service and all its connections. What was sent to a session's sides is delivered, and they learn that it
    /// was cut short. Returns its listener, if it has one.
    fn remove_service(&mut self, id: ServiceId) -> Option<Clients> {
        for key in self.reactor.keys(|socket| socket.state.service() == id) {
            match self.reactor.get(key).map(|socket| socket.state.partner()) {
                Some(Some(_)) => self.end(key, Cause::interrupted("its service was removed or changed")),
                Some(None) => self.close(key, Close::Now),
                None => {}
            }
        }
        let mut clients = self.services.remove(&id)?.clients?;
        if let Some(listener) = &mut clients.listener {
            // One that is not registered any more is as good.
            let _ = self.reactor.registry().deregister(listener);
        }
        clients.waiting = 0;
        clients.retry = true;
        Some(clients)
    }
}
