//! The two programs of the demo, each in a thread of its own.

use super::{CONNECTIONS, Mapping};
use crate::agent::settings::{Draft, SettingsError};
use crate::agent::{self, Agent};
use crate::cli::Failure;
use crate::daemon::{Daemon, Options, StartError};
use crate::exit;
use crate::layout::Layout;
use crate::net::trust::Trust;
use crate::secret::Secret;
use log::LevelFilter;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// The daemon. It ends by itself on Ctrl-C, or when its API is told so.
pub(super) struct RunningConnector(JoinHandle<Result<(), StartError>>);

impl RunningConnector {
    pub(super) fn start(settings: &Path, log: PathBuf) -> Result<Self, Failure> {
        let options = Options {
            layout: Layout::new(settings.to_owned(), None, None),
            user: None,
            log_file: Some(log),
            log_level: LevelFilter::Info,
        };
        let daemon = Daemon::enter(options).map_err(|e| Failure::new(e.status(), e))?;
        Ok(Self(spawn("connector", move || daemon.run())?))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end.
    pub(super) fn wait(self) -> Result<(), Failure> {
        join(self.0)?.map_err(|e| Failure::new(e.status(), e))
    }
}

/// The agent.
pub(super) struct RunningAgent {
    handle: agent::Handle,
    thread: JoinHandle<io::Result<()>>,
}

impl RunningAgent {
    /// Makes the service on port `page` reachable. `certificate`: the Connector's; `None` in dev mode.
    pub(super) fn start(mapping: &Mapping, page: u16, certificate: Option<&Path>) -> Result<Self, Failure> {
        let trust = certificate.map(CertificateDer::from_pem_file).transpose();
        let trust =
            trust.map_err(|e| Failure::new(exit::CONFIG, format!("the certificate that was just made: {e}")))?;
        let draft = Draft {
            host: Some("127.0.0.1".to_owned()),
            port: Some(mapping.agents),
            connections: Some(CONNECTIONS),
            passcode: Some(Secret::new(mapping.passcode.as_str())),
            local_port: Some(page),
            dev: trust.is_none(),
            trust: trust.map(Trust::Only),
            ..Draft::default()
        };
        let settings = draft.complete().map_err(|e: SettingsError| Failure::new(e.status(), e))?;
        let (mut agent, handle) = Agent::new(settings).map_err(|e| Failure::new(e.status(), e))?;
        Ok(Self { handle, thread: spawn("agent", move || agent.run())? })
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<(), Failure> {
        let failed = |e| Failure::new(exit::SYSTEM, format!("the agent: {e}"));
        self.handle.stop().map_err(failed)?;
        join(self.thread)?.map_err(failed)
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|e| Failure::new(exit::SYSTEM, format!("no thread for the {name}: {e}")))
}

fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new(exit::SOFTWARE, "a thread has died"))
}
