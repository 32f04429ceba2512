//! The mappings that exist: in the event loop, in `configs.json`, and here. The three agree whenever
//! the control thread waits for its next request.
//!
//! A change is made in two steps. First it is made in the list (and, for a new mapping, in the loop,
//! since only the loop can tell whether ports bind). [`Registry::commit`] then writes all changes since the last
//! one with a single save; only then they may be acknowledged, and only then a removed mapping is
//! closed. If the save fails they are all undone.

use crate::limits::{BIND_TRIES, DIRECT_ENTRIES};
use crate::mapping::{Kind, Mapping, Request};
use crate::plural::counted;
use crate::ports::{PortSet, Ports};
use crate::relay::command::{EventLoop, Gone, OpenError};
use crate::store::{SaveError, Store};
use crate::throttle::is_within_budget;
use log::{error, info, warn};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A disk that has failed is tried again after this.
const MEND: Duration = Duration::from_secs(1);
/// As many ranges of usable ports are named as help to see which they are.
const RANGES: usize = 8;

/// The list, and what it takes to change it.
pub(super) struct Registry {
    mappings: BTreeMap<String, Mapping>,
    pub ports: Ports,
    pub relay: Box<dyn EventLoop>,
    store: Store,
    /// Made, but not durable.
    pending: Vec<Change>,
    /// The file may contain a refused change: the next try to write it without.
    mend_at: Option<Instant>,
}

/// A change that can be undone.
enum Change {
    Added { id: String, by: IpAddr },
    Removed { mapping: Mapping, by: IpAddr },
}

impl Registry {
    /// `mappings` are those of the `store`; they keep their ports even outside `usable`.
    pub fn new(store: Store, mappings: Vec<Mapping>, usable: PortSet, relay: Box<dyn EventLoop>) -> Self {
        let taken: Vec<u16> = mappings.iter().filter_map(Mapping::ports).flatten().collect();
        let mappings = mappings.into_iter().map(|mapping| (mapping.id.clone(), mapping)).collect();
        Self { mappings, ports: Ports::new(usable, taken), relay, store, pending: Vec::new(), mend_at: None }
    }

    /// Opens what is in the list. What cannot be opened now stays, and the loop goes on trying.
    pub fn restore(&self) -> Result<(), Gone> {
        /// More lines than this about the same trouble help nobody.
        const LINES: usize = 20;
        let mut failed = 0;
        for mapping in self.mappings.values() {
            for OpenError { port, cause } in self.relay.restore(mapping)? {
                failed += 1;
                if failed <= LINES {
                    let label = mapping.label();
                    warn!("Mapping {label}: port {port} could not be bound ({cause}), inactive; retried every second");
                }
            }
        }
        if failed > LINES {
            warn!("{} could not be bound", counted(failed - LINES, "more port"));
        }
        Ok(())
    }

    /// All mappings and direct entries, by id.
    pub fn mappings(&self) -> &BTreeMap<String, Mapping> {
        &self.mappings
    }

    /// How many changes wait to be committed.
    pub fn changes(&self) -> usize {
        self.pending.len()
    }

    /// The mapping or direct entry of this id or name.
    pub fn find(&self, id_or_name: &str) -> Option<&Mapping> {
        let is_named = |mapping: &&Mapping| mapping.name() == Some(id_or_name);
        self.mappings.get(id_or_name).or_else(|| self.mappings.values().find(is_named))
    }

    /// Makes a mapping and opens it on two ports that bind.
    pub fn add(&mut self, request: &Request, by: IpAddr) -> Result<&Mapping, AddError> {
        if let Some(name) = &request.options.name {
            if let Some(other) = self.find(name) {
                return Err(AddError::NameTaken { name: name.clone(), id: other.id.clone() });
            }
        }
        let mut skipped = Vec::new();
        let opened = self.open_somewhere(request, &mut skipped);
        // Other programs' ports have their turn again when all others have had theirs.
        skipped.into_iter().for_each(|port| self.ports.give_back(port));
        opened.map(|mapping| self.enter(mapping, by))
    }

    /// Makes a direct entry, which needs no ports.
    pub fn add_direct(&mut self, by: IpAddr) -> Result<&Mapping, AddError> {
        let is_direct = |mapping: &&Mapping| matches!(mapping.kind, Kind::Direct { .. });
        // Stored ones are never taken away: there may be more of them.
        if self.mappings.values().filter(is_direct).count() >= DIRECT_ENTRIES {
            return Err(AddError::NoEntries);
        }
        let mapping = Mapping::new_direct();
        self.relay.open(&mapping)?.map_err(AddError::Refused)?;
        Ok(self.enter(mapping, by))
    }

    fn enter(&mut self, mapping: Mapping, by: IpAddr) -> &Mapping {
        self.pending.push(Change::Added { id: mapping.id.clone(), by });
        self.mappings.entry(mapping.id.clone()).or_insert(mapping)
    }

    /// Tries pairs of ports until one binds; ports that were taken for nothing end up in `skipped`.
    fn open_somewhere(&mut self, request: &Request, skipped: &mut Vec<u16>) -> Result<Mapping, AddError> {
        self.claim(request.ports)?;
        let mut ports = request.ports;
        let mut failure = AddError::NoPorts;
        for _ in 0..BIND_TRIES {
            for port in ports.iter_mut().filter(|port| port.is_none()) {
                *port = self.ports.take();
            }
            let [Some(port1), Some(port2)] = ports else { break };
            let mapping = Mapping::new(request, [port1, port2]);
            let error = match self.relay.open(&mapping)? {
                Ok(()) => return Ok(mapping),
                Err(error) => error,
            };
            let bad = usize::from(error.port == port2);
            if request.ports[bad].is_some() {
                failure = AddError::NotBindable(error);
                break;
            }
            skipped.extend(ports[bad].take());
            if request.ports == [None, None] && ports[0].is_none() {
                ports.swap(0, 1);
            }
            if !is_taken(error.cause.kind()) {
                failure = AddError::Refused(error);
                break;
            }
        }
        skipped.extend(ports.into_iter().flatten());
        Err(failure)
    }

    /// Takes those ports that it must be, or none.
    fn claim(&mut self, ports: [Option<u16>; 2]) -> Result<(), AddError> {
        let wanted = || ["port1", "port2"].into_iter().zip(ports).filter_map(|(key, port)| Some((key, port?)));
        for (key, port) in wanted() {
            if !self.ports.is_usable(port) {
                return Err(AddError::NotUsable { key, port, usable: self.ports.usable().ranges(RANGES) });
            }
            if !self.ports.is_free(port) {
                let has_it = |mapping: &&Mapping| mapping.ports().is_some_and(|ports| ports.contains(&port));
                let id = self.mappings.values().find(has_it).map(|mapping| mapping.id.clone());
                return Err(AddError::PortTaken { key, port, id });
            }
        }
        wanted().for_each(|(_, port)| self.ports.claim(port));
        Ok(())
    }

    /// Takes a mapping or direct entry off the list, and says which; `None` if there is none of this id or name.
    pub fn remove(&mut self, id_or_name: &str, by: IpAddr) -> Option<String> {
        let id = self.find(id_or_name)?.id.clone();
        let mapping = self.mappings.remove(&id)?;
        self.pending.push(Change::Removed { mapping, by });
        Some(id)
    }

    /// Makes all changes since the last commit durable, or undoes them all.
    pub fn commit(&mut self) -> Result<Result<(), SaveError>, Gone> {
        if self.pending.is_empty() {
            return Ok(Ok(()));
        }
        let saved = self.store.save(self.mappings.values());
        let pending = std::mem::take(&mut self.pending);
        match &saved {
            Ok(()) => {
                self.mend_at = None;
                pending.into_iter().try_for_each(|change| self.settle(change))?;
            }
            Err(error) => {
                if is_within_budget(Instant::now()) {
                    error!("{error}; {} change(s) undone", pending.len());
                }
                pending.into_iter().rev().try_for_each(|change| self.undo(change))?;
                if error.is_in_place() {
                    self.mend_at = Some(Instant::now());
                    if let Err(error) = self.mend() {
                        let until = "until this succeeds a restart may bring back a refused change";
                        error!("{error}; {until}; retried every second");
                    }
                }
            }
        }
        Ok(saved)
    }

    /// What was refused must not come back with a restart: where the file may contain it, it is written anew.
    /// To be called every now and then.
    pub fn mend(&mut self) -> Result<(), SaveError> {
        let now = Instant::now();
        if self.mend_at.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.mend_at = Some(now + MEND);
        self.store.save(self.mappings.values())?;
        self.mend_at = None;
        Ok(())
    }

    /// The change is durable.
    fn settle(&mut self, change: Change) -> Result<(), Gone> {
        match change {
            Change::Added { id, by } => {
                if let Some(mapping) = self.mappings.get(&id) {
                    info!("Mapping {} added by {by}: {}", mapping.label(), summary(&mapping.kind));
                }
            }
            Change::Removed { mapping, by } => {
                self.relay.close(&mapping.id)?;
                self.give_back_ports_of(&mapping);
                info!("Mapping {} removed by {by}", mapping.label());
            }
        }
        Ok(())
    }

    /// The change could not be made durable.
    fn undo(&mut self, change: Change) -> Result<(), Gone> {
        match change {
            Change::Added { id, .. } => {
                self.relay.close(&id)?;
                if let Some(mapping) = self.mappings.remove(&id) {
                    self.give_back_ports_of(&mapping);
                }
            }
            // The loop has not been told yet.
            Change::Removed { mapping, .. } => drop(self.mappings.insert(mapping.id.clone(), mapping)),
        }
        Ok(())
    }

    fn give_back_ports_of(&mut self, mapping: &Mapping) {
        mapping.ports().into_iter().flatten().for_each(|port| self.ports.give_back(port));
    }
}

/// Whether another port might do better.
fn is_taken(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

/// Why there is no new mapping.
#[derive(Debug)]
pub(super) enum AddError {
    /// No two usable ports are free, or not after [`BIND_TRIES`] tries.
    NoPorts,
    /// There are [`DIRECT_ENTRIES`] direct entries.
    NoEntries,
    /// Another mapping is called so, or that is its id.
    NameTaken { name: String, id: String },
    /// A port that it was to be is not among those for mappings.
    NotUsable { key: &'static str, port: u16, usable: String },
    /// A port that it was to be is another mapping's, or that of one that is being removed.
    PortTaken { key: &'static str, port: u16, id: Option<String> },
    /// A port that it was to be could not be bound.
    NotBindable(OpenError),
    /// Not this port's fault: no port would have opened.
    Refused(OpenError),
    /// The event loop is gone.
    Gone,
}

impl From<Gone> for AddError {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What the log says of a new mapping.
fn summary(kind: &Kind) -> String {
    match kind {
        Kind::Public { agents, users } => format!("public, agents on port {}, users on port {users}", agents.port),
        Kind::Private { sides: [one, two] } => format!("private, agents on ports {} and {}", one.port, two.port),
        Kind::Direct { .. } => "direct".to_owned(),
    }
}
