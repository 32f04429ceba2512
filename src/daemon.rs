//! `iofog-connector start`: puts the daemon together, runs it, and takes it apart.
//!
//! | thread | what it does |
//! |---|---|
//! | main | the event loop ([`crate::relay`]) |
//! | control | answers the API, owns mappings and files ([`crate::control`]) |
//! | signals | SIGTERM and SIGINT end the loop |
//!
//! tiny_http adds an acceptor and a few short-lived workers behind its private socket.

use crate::config::{Config, ConfigError};
use crate::control::{self, Control};
use crate::limits::{API_CONNECTIONS, BUFFERS};
use crate::net::certificate::{self, CertificateError};
use crate::relay::command::{Gone, Handle};
use crate::relay::{self, Front, Relay};
use crate::store::{LoadError, Store};
use log::{error, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

/// Descriptors that are not connections: files, epoll, and three for each connection of the API.
const RESERVED: usize = 64 + 3 * API_CONNECTIONS;
/// Assumed if the system does not tell how many descriptors there may be.
const DESCRIPTORS: u64 = 1024;

/// Why the daemon did not start, or ended early.
#[derive(Debug)]
pub enum StartError {
    Config(ConfigError),
    Certificate(CertificateError),
    /// The mappings could not be read.
    Store(LoadError),
    Control(control::StartError),
    /// The API port could not be bound.
    Api {
        port: u16,
        cause: io::Error,
    },
    /// The system refuses something that every daemon needs.
    System {
        what: &'static str,
        cause: io::Error,
    },
    /// The control thread has died; what it said is in the log.
    Died,
}

impl StartError {
    /// The exit status (sysexits.h).
    pub fn status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Certificate(_) | Self::Store(_) | Self::Control(_) => 78,
            Self::Api { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Api { .. } => 69,
            Self::System { .. } => 71,
            Self::Died => 70,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::Certificate(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
            Self::Control(e) => e.fmt(f),
            Self::Api { port, cause } if cause.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "the API port {port} could not be bound: {cause}. Ports below 1024 need root or CAP_NET_BIND_SERVICE; \
                 `apiport` names another one"
            ),
            Self::Api { port, cause } => {
                write!(f, "the API port {port} could not be bound: {cause}. `apiport` names another one")
            }
            Self::System { what, cause } => write!(f, "{what}: {cause}"),
            Self::Died => f.write_str("the control thread has died"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the daemon in the foreground until it is told to stop.
pub fn start(settings: &Path) -> Result<(), StartError> {
    let config = Config::load(settings).map_err(StartError::Config)?;
    let tls = match config.dev {
        true => None,
        false => Some(certificate::server_config(&config.beside("")).map_err(StartError::Certificate)?),
    };
    let system = |what| move |cause| StartError::System { what, cause };
    let (front, listener) = Front::new().map_err(system("no private socket could be made in a temporary folder"))?;
    let seal = front.seal().clone();
    let (connections, buffers) = capacity(&config);
    let (store, mappings) = Store::open(&config.beside("configs.json")).map_err(StartError::Store)?;
    let Config { listen, api_port, broker, .. } = config;
    let setup = relay::Setup { listen, api_port, broker, tls, connections, buffers, front };
    let (mut relay, handle) = Relay::new(setup).map_err(|cause| StartError::Api { port: config.api_port, cause })?;
    info!("{}", summary(&config, connections, buffers));
    stop_on_signal(handle.clone()).map_err(system("no signal handler could be set"))?;
    let (_reload, reloads) = channel();
    let setup = control::Setup { config, store, mappings, relay: handle.clone(), listener, seal, reloads };
    let failed = run_control(Control::new(setup).map_err(StartError::Control)?, handle)?;
    relay.run().map_err(system("the event loop failed"))?;
    if failed.load(Ordering::Relaxed) {
        return Err(StartError::Died);
    }
    info!("Stopped");
    Ok(())
}

/// One line with what the daemon is going to do.
fn summary(config: &Config, connections: usize, buffers: usize) -> String {
    let listen = config.listen.map_or("all addresses".to_owned(), |ip| ip.to_string());
    let broker = config.broker.map_or("off".to_owned(), |port| format!("port {port}"));
    format!(
        "iofog-connector {} started: {}, {} mode, {listen}, API port {}, broker {broker}, {} ports for mappings, \
         {connections} connections, {buffers} buffers",
        env!("CARGO_PKG_VERSION"),
        config.file.display(),
        if config.dev { "dev" } else { "TLS" },
        config.api_port,
        config.ports.len(),
    )
}

/// How many connections there may be, and how many buffers for them. Raises the descriptor limit as far as allowed.
fn capacity(config: &Config) -> (usize, usize) {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(DESCRIPTORS);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    // An eighth is left for listeners: two a mapping.
    let most = (descriptors - descriptors / 8).saturating_sub(RESERVED).max(16);
    let connections = config.connections.unwrap_or(most);
    if connections > most {
        warn!("`connections` is {connections}, but {descriptors} descriptors allow no more than {most}; those it is");
    }
    let connections = connections.min(most);
    (connections, config.buffers.unwrap_or(connections.min(BUFFERS)))
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

/// Starts the control thread. The loop ends when that ends; the flag says whether it died.
fn run_control(control: Control, handle: Handle) -> Result<Arc<AtomicBool>, StartError> {
    let failed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&failed);
    let work = move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match control.restore() {
            Ok(()) => control.run(),
            Err(Gone) => Ok(()),
        }));
        flag.store(!matches!(ended, Ok(Ok(()))), Ordering::Relaxed);
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(e)) => error!("The control thread has lost its socket, the daemon ends: {e}"),
            Err(_) => error!("The control thread has died, the daemon ends"),
        }
        // If the loop is gone already, all the better.
        let _ = handle.stop();
    };
    let spawned = thread::Builder::new().name("control".into()).spawn(work);
    spawned.map_err(|cause| StartError::System { what: "no control thread could be started", cause })?;
    Ok(failed)
}
