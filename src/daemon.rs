//! `iofog-connector start`: puts the daemon together, runs it, and takes it apart.
//!
//! | thread | what it does |
//! |---|---|
//! | main | the event loop ([`crate::relay`]) |
//! | control | answers the API, owns mappings and files ([`crate::control`]) |
//! | signals | stop, rotate (`signals`) |
//! | reload | reads the files again (`reload`) |
//! | log | writes what the others say ([`crate::logging`]) |
//!
//! tiny_http adds an acceptor and a few short-lived workers behind its private socket.

pub mod pidfile;
pub mod privileges;
pub mod requirements;
pub mod writer;

mod error;
mod reload;
mod signals;

pub use error::StartError;

use crate::config::{self, Config, ConfigError};
use crate::control::{self, Control};
use crate::layout::Layout;
use crate::logging::{self, AccessLog, Format, Logging};
use crate::net::server_tls::ServerTls;
use crate::plural::counted;
use crate::ports::ephemeral;
use crate::relay::command::{EventLoop, Handle};
use crate::relay::{self, LoopEvent, NewError, ParserSocket, Relay};
use crate::store::{self, FILE_NAME, Store};
use crate::supervisor::Supervisor;
use log::{LevelFilter, error, info, warn};
use pidfile::PidFile;
use privileges::RunAs;
use reload::{Files, Reloader};
use requirements::{Capacity, conflicts, misfits, too_many_connections};
use signals::Caught;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

/// The options of `start`.
#[derive(Clone, Debug)]
pub struct Options {
    pub layout: Layout,
    /// Whom to run as; `None`: whoever starts it.
    pub user: Option<String>,
    /// Where the log goes; `None`: as the settings say.
    pub log_file: Option<PathBuf>,
    pub log_level: LevelFilter,
    /// What lines of both logs look like.
    pub log_format: Format,
}

/// A daemon that has its pid file, its user and its log, and serves nothing yet.
pub struct Daemon {
    layout: Layout,
    config: Result<Config, ConfigError>,
    /// `None`: it is standard error.
    log_file: Option<PathBuf>,
    access_log: Option<AccessLog>,
    /// Both logs, as far as there are.
    logs: Vec<Logging>,
    signals: Caught,
    /// Dropped last, so that nobody takes the daemon for gone too early.
    _pid_file: PidFile,
}

impl Daemon {
    /// Makes this process the daemon of its settings. What goes wrong here cannot be in the log yet.
    pub fn enter(options: Options) -> Result<Self, StartError> {
        let run_as = options.user.as_deref().map(RunAs::named).transpose()?;
        let held = signals::hold().map_err(system("no signal handler could be set"))?;
        let pid_file = lock(&options.layout, run_as.as_ref())?;
        let signals = signals::catch().map_err(system("no signal handler could be set"))?;
        drop(held);
        // With faulty settings the fault goes to the log, so they are looked at first and judged later.
        let config = Config::load(&options.layout);
        if let Some(log) = &options.log_file {
            if let Some(file) = config::file_under_log(log, &options.layout, config.as_ref().ok()) {
                return Err(StartError::LogIsTaken { file });
            }
        }
        let log_file = options.log_file.or_else(|| config.as_ref().ok()?.log_file.clone());
        let logging = logging::start(options.log_level, options.log_format, log_file.as_deref());
        let logging = logging.map_err(|cause| match &log_file {
            Some(file) => StartError::Log { file: file.clone(), cause },
            None => StartError::System { what: "the log could not be set up", cause },
        })?;
        let access_file = config.as_ref().ok().and_then(|config| config.access_log.clone());
        let access = access_file.map(|file| {
            let failed = |cause| StartError::AccessLog { file: file.clone(), cause };
            AccessLog::start(&file, options.log_format).map_err(failed)
        });
        let (access_log, access) = access.transpose()?.unzip();
        let logs = std::iter::once(logging).chain(access).collect();
        Ok(Self { layout: options.layout, config, log_file, access_log, logs, signals, _pid_file: pid_file })
    }

    /// Whether people at the terminal see the log.
    pub fn logs_to_file(&self) -> bool {
        self.log_file.is_some()
    }

    /// Serves until it is stopped.
    pub fn run(self) -> Result<(), StartError> {
        let config = self.config?;
        let Files { tls, token } = Files::read(&config)?;
        let supervisor = Arc::new(Supervisor::from_environment());
        let (parser, listener) = ParserSocket::new().map_err(system("no private socket in any temporary folder"))?;
        let capacity = Capacity::of(&config)?;
        let (store, mappings) = Store::open(&config.state_file(FILE_NAME))?;
        if let Some(warning) = store::read_only(&config.state) {
            warn!("{warning}");
        }
        conflicts(&config, &mappings).for_each(|conflict| error!("{conflict}"));
        misfits(&config, &mappings).for_each(|misfit| warn!("{misfit}"));
        let (mut relay, handle) = start_relay(&config, tls, parser, capacity, self.access_log)?;
        if let Some(warning) = ephemeral::warning(&config.ports) {
            warn!("{warning}");
        }
        let (control, reloads) = channel();
        let (layout, started, relay_handle) = (self.layout, config.clone(), handle.clone());
        let reloader = Reloader { layout, started, relay: handle.clone(), control, supervisor: supervisor.clone() };
        signals::spawn(self.signals, reloader, self.logs.clone()).map_err(system("no thread for signals"))?;
        let setup = control::Setup { config, token, store, mappings, relay: Box::new(relay_handle), listener, reloads };
        let control = Control::new(setup).map_err(system("the API's private socket cannot be served"))?;
        let watch = supervisor.clone();
        let work = move || {
            if control.restore().is_ok() {
                watch.ready();
                control.run();
            }
        };
        run_control(work, handle)?;
        let mut heartbeat = supervisor.heartbeat();
        let watched = relay.run(move |sign| match sign {
            LoopEvent::Turning => heartbeat(),
            LoopEvent::Stopping => supervisor.stopping(),
        });
        self.logs.iter().for_each(Logging::flush);
        watched.map_err(system("the event loop failed"))?;
        info!("Stopped");
        Ok(())
    }
}

/// Takes the lock, and becomes the user. As root only where root alone can write: anywhere else another user could have
/// put a file of root's, or a link to one, in the place of the pid file.
fn lock(layout: &Layout, run_as: Option<&RunAs>) -> Result<PidFile, StartError> {
    let Some(run_as) = run_as else { return Ok(PidFile::lock(&layout.pid_file)?) };
    let is_only_root = writer::is_only_root(layout.decides_on_pid_file());
    if !is_only_root.map_err(system("the place of the pid file could not be looked at"))? {
        run_as.switch()?;
        return Ok(PidFile::lock(&layout.pid_file)?);
    }
    let pid_file = PidFile::lock(&layout.pid_file)?;
    pid_file.give_to(run_as.uid()).map_err(system("the pid file could not be given to the user"))?;
    run_as.switch()?;
    Ok(pid_file)
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |cause| StartError::System { what, cause }
}

/// Binds the API port, and logs what the daemon is going to do.
fn start_relay(
    config: &Config,
    tls: Option<ServerTls>,
    parser: ParserSocket,
    Capacity { connections, sockets, buffers }: Capacity,
    access_log: Option<AccessLog>,
) -> Result<(Relay, Handle), StartError> {
    let Config { listen, api_port, broker, .. } = *config;
    let setup = relay::Setup {
        listen,
        api_port,
        metrics_listen: config.metrics_listen,
        broker,
        tls,
        controllers: config.controllers.clone(),
        connections,
        sockets,
        trust_proxy: config.trust_proxy.clone(),
        parser,
        access_log,
    };
    let buffer_count = buffers.size();
    let started = Relay::new(setup, buffers).map_err(|error| match error {
        // What was left of it went to the buffers.
        NewError::ApiPort(cause) if cause.kind() == io::ErrorKind::OutOfMemory => {
            StartError::Buffers { settings: config.file.clone(), count: buffer_count, cause }
        }
        NewError::Loop(cause) => StartError::System { what: "no event loop", cause },
        NewError::ApiPort(cause) => StartError::Api { port: api_port, cause },
    })?;
    let listen = listen.map_or("all addresses".to_owned(), |ip| ip.to_string());
    let broker = broker.map_or("off".to_owned(), |port| format!("port {port}"));
    info!(
        "iofog-connector {} started: {}, {} mode, {listen}, API port {api_port}, broker {broker}, {} for mappings, {}, {}",
        env!("CARGO_PKG_VERSION"),
        config.file.display(),
        if config.dev { "dev" } else { "TLS" },
        counted(config.ports.len(), "port"),
        counted(connections, "connection"),
        counted(buffer_count, "buffer"),
    );
    config.warnings().into_iter().chain(too_many_connections(config)).for_each(|warning| warn!("{warning}"));
    Ok(started)
}

/// Starts the control thread. When it ends, the loop ends.
fn run_control(work: impl FnOnce() + Send + 'static, handle: Handle) -> Result<(), StartError> {
    let work = move || {
        work();
        // If the loop is gone already, all the better.
        let _ = handle.stop("the control thread has ended".to_owned());
    };
    let spawned = thread::Builder::new().name("control".into()).spawn(work);
    spawned.map(drop).map_err(|cause| StartError::System { what: "no control thread could be started", cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_loop_ends_with_the_control_thread() {
        let (parser, _listener) = ParserSocket::new().unwrap();
        let listen = Some(Ipv4Addr::LOCALHOST.into());
        let (tls, controllers, broker) = (None, None, None);
        let setup = relay::Setup {
            listen,
            api_port: 0,
            metrics_listen: None,
            broker,
            tls,
            controllers,
            connections: 16,
            sockets: 32,
            trust_proxy: Vec::new(),
            parser,
            access_log: None,
        };
        let (mut relay, handle) = Relay::new(setup, relay::reserve_buffers(4).unwrap()).unwrap();
        run_control(|| {}, handle).unwrap();
        relay.run(|_| {}).unwrap();
    }
}
