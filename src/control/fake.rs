//! A stand-in for the event loop: answers the control thread's commands, binds nothing.

use crate::mapping::Mapping;
use crate::relay::command::{Command, Handle, OpenError, PipeStatus, Totals};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the loop would know.
#[derive(Default)]
pub struct World {
    pub open: HashMap<String, Mapping>,
    /// Ports that other programs have.
    pub foreign: HashSet<u16>,
    /// What every attempt to open fails with.
    pub broken: Option<ErrorKind>,
    pub stopped: bool,
}

/// The stand-in; it ends with its last [`Handle`].
#[derive(Clone, Default)]
pub struct FakeLoop(Arc<Mutex<World>>);

impl FakeLoop {
    pub fn start() -> (Self, Handle) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (handle, inbox) = Handle::new(Arc::new(waker));
        let fake = Self::default();
        let thread = fake.clone();
        std::thread::spawn(move || {
            let _poll = poll;
            thread.run(&inbox);
        });
        (fake, handle)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn run(&self, inbox: &Receiver<Command>) {
        // Whoever asked may be gone before the answer; that is the asker's business.
        while let Ok(command) = inbox.recv() {
            match command {
                Command::Open { mapping, reply } => {
                    let _ = reply.send(self.open(mapping));
                }
                Command::Restore { mapping, reply } => {
                    let failed = self.open(mapping.clone()).err();
                    self.world().open.insert(mapping.id.clone(), mapping);
                    let _ = reply.send(failed.into_iter().collect());
                }
                Command::Close { id, reply } => {
                    self.world().open.remove(&id);
                    let _ = reply.send(());
                }
                Command::Status { id, reply } => {
                    let _ = reply.send(self.status(&id));
                }
                Command::Reload { .. } => {}
                Command::Admit { reply, .. } => drop(reply.send(())),
                Command::StatusOfAll { reply } => {
                    let ids: Vec<String> = self.world().open.keys().cloned().collect();
                    let all = ids.into_iter().filter_map(|id| self.status(&id).map(|status| (id, status)));
                    let _ = reply.send(all.collect());
                }
                Command::Totals { reply } => {
                    let _ = reply.send(Totals::default());
                }
                Command::Stop { .. } => self.world().stopped = true,
            }
        }
    }

    fn open(&self, mapping: Mapping) -> Result<(), OpenError> {
        let mut world = self.world();
        for port in mapping.ports().into_iter().flatten() {
            let kind = if world.foreign.contains(&port) { Some(ErrorKind::AddrInUse) } else { world.broken };
            if let Some(kind) = kind {
                return Err(OpenError { port, cause: kind.into() });
            }
        }
        world.open.insert(mapping.id.clone(), mapping);
        Ok(())
    }

    fn status(&self, id: &str) -> Option<PipeStatus> {
        let world = self.world();
        let [port1, port2] = world.open.get(id)?.ports()?;
        let bound = [port1, port2].map(|port| !world.foreign.contains(&port));
        Some(PipeStatus { bound, ..PipeStatus::default() })
    }
}
