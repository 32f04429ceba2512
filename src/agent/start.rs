//! Puts an agent together, runs it in the foreground, and takes it apart.

use super::arguments::Arguments;
use super::clients::Clients;
use super::pool::Pool;
use super::resolver::Resolver;
use super::settings::{Role, Security, Settings, SettingsError};
use super::target::Target;
use super::{Agent, CLIENTS, Log, Near, WAKE};
use crate::descriptors;
use crate::exit;
use crate::limits::BUFFERS;
use crate::net::buffers::Pool as Buffers;
use crate::net::reactor::{Reactor, own_token};
use crate::net::trust::{self, TrustError};
use log::info;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;
use thiserror::Error;

/// Relay buffers of one session: one for each direction, one for the beginning of a record.
const BUFFERS_EACH: usize = 3;

/// Why an agent did not start, or ended early.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// `--listen` names an address that cannot be listened on.
    #[error("--listen: {on} cannot be listened on: {cause}")]
    Listen { on: Target, cause: io::Error },
    /// The system refuses something that every agent needs.
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

impl StartError {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings(e) => e.status(),
            Self::Trust(_) => exit::CONFIG,
            Self::Listen { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => exit::NOT_PERMITTED,
            Self::Listen { .. } => exit::UNAVAILABLE,
            Self::System { .. } => exit::SYSTEM,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |cause| StartError::System { what, cause }
}

/// Ends an agent from another thread.
#[derive(Clone)]
pub struct Handle {
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Handle {
    /// Asks the agent to end: what is in flight is delivered first. Errors: the agent is gone.
    pub fn stop(&self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake()
    }
}

/// Runs an agent in the foreground until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> Result<(), StartError> {
    let settings = arguments.settings()?;
    let (mut agent, handle) = Agent::new(settings)?;
    stop_on_signal(handle).map_err(system("no signal handler could be set"))?;
    info!("{}", agent.summary());
    agent.run().map_err(system("the event loop failed"))?;
    info!("Stopped");
    Ok(())
}

fn stop_on_signal(handle: Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if handle.stop().is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

impl Agent {
    /// Binds the listening end of a tunnel, if this is one. Nothing is dialled before [`Agent::run`].
    pub fn new(settings: Settings) -> Result<(Self, Handle), StartError> {
        let tls = match &settings.security {
            Security::Dev => None,
            Security::Tls { trust, .. } => Some(trust::client_config(trust, None)?),
        };
        let connections = usize::from(settings.connections);
        // Every line, and a local connection for each. What cannot be had shows when it is needed.
        descriptors::raise_limit();
        let buffers = Buffers::new((connections * BUFFERS_EACH).clamp(2, BUFFERS), 0);
        let buffers = buffers.map_err(system("no relay buffers"))?;
        let reactor = Reactor::new(buffers).map_err(system("no event loop"))?;
        let waker = mio::Waker::new(reactor.registry(), own_token(WAKE));
        let waker = Arc::new(waker.map_err(system("no event loop"))?);
        let near = match settings.role {
            Role::Expose => Near::Service(Resolver::new(&settings.target, &waker)),
            Role::Listen => {
                let clients = Clients::listen(&settings.target, reactor.registry(), own_token(CLIENTS));
                let failed = |cause| StartError::Listen { on: settings.target.clone(), cause };
                Near::Clients(clients.map_err(failed)?)
            }
        };
        let handle = Handle { stop: Arc::default(), waker: Arc::clone(&waker) };
        let agent = Self {
            connector: Resolver::new(&settings.connector, &waker),
            ask_again: Instant::now(),
            pool: Pool::new(connections, Instant::now()),
            asking: Vec::new(),
            stop: Arc::clone(&handle.stop),
            ending: None,
            log: Log::default(),
            settings,
            tls,
            reactor,
            near,
        };
        Ok((agent, handle))
    }

    /// One line with what the agent is going to do.
    fn summary(&self) -> String {
        let Settings { connector, connections, role, target, security, .. } = &self.settings;
        let role = match role {
            Role::Expose => format!("exposes {target}"),
            Role::Listen => format!("listens on {target} for clients of the other end"),
        };
        let security = if *security == Security::Dev { "dev mode" } else { "TLS" };
        let version = env!("CARGO_PKG_VERSION");
        format!("iofog-connector {version} agent: {role} through {connector}, {security}, {connections} connections")
    }
}
