//! A stand-in for the event loop: answers the control thread, binds nothing.

use crate::mapping::Mapping;
use crate::relay::command::{EventLoop, Gone, OpenError, PipeStatus, Totals};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What the loop would know.
#[derive(Default)]
pub struct World {
    pub open: HashMap<String, Mapping>,
    /// Ports that other programs have.
    pub foreign: HashSet<u16>,
    /// What every attempt to open fails with.
    pub broken: Option<ErrorKind>,
    pub stopped: bool,
    /// It does not turn.
    pub stuck: bool,
}

/// The stand-in. Its clones share one world.
#[derive(Clone, Default)]
pub struct FakeLoop(Arc<Mutex<World>>);

impl FakeLoop {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn open(&mut self, mapping: &Mapping) -> Result<(), OpenError> {
        for port in mapping.ports().into_iter().flatten() {
            let kind = if self.foreign.contains(&port) { Some(ErrorKind::AddrInUse) } else { self.broken };
            if let Some(kind) = kind {
                return Err(OpenError { port, cause: kind.into() });
            }
        }
        self.open.insert(mapping.id.clone(), mapping.clone());
        Ok(())
    }

    fn status(&self, id: &str) -> Option<PipeStatus> {
        let ports = self.open.get(id)?.ports()?;
        let bound = ports.map(|port| !self.foreign.contains(&port));
        Some(PipeStatus { bound, ..PipeStatus::default() })
    }
}

impl EventLoop for FakeLoop {
    fn open(&self, mapping: &Mapping) -> Result<Result<(), OpenError>, Gone> {
        Ok(self.world().open(mapping))
    }

    fn restore(&self, mapping: &Mapping) -> Result<Vec<OpenError>, Gone> {
        let failed = self.world().open(mapping).err();
        self.world().open.insert(mapping.id.clone(), mapping.clone());
        Ok(failed.into_iter().collect())
    }

    fn close(&self, id: &str) -> Result<(), Gone> {
        self.world().open.remove(id);
        Ok(())
    }

    fn status(&self, id: &str) -> Result<Option<PipeStatus>, Gone> {
        Ok(self.world().status(id))
    }

    fn status_of_all(&self) -> Result<Vec<(String, PipeStatus)>, Gone> {
        let world = self.world();
        Ok(world.open.keys().filter_map(|id| Some((id.clone(), world.status(id)?))).collect())
    }

    fn totals(&self) -> Result<Totals, Gone> {
        Ok(Totals::default())
    }

    fn stop(&self, _why: String) -> Result<(), Gone> {
        self.world().stopped = true;
        Ok(())
    }

    fn turns_within(&self, _limit: Duration) -> bool {
        !self.world().stuck
    }

    fn is_stopping(&self) -> bool {
        false
    }
}
