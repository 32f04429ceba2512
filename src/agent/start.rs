//! Puts an agent together, runs it in the foreground, and takes it apart.

use super::arguments::Arguments;
use super::error::{StartError, system};
use super::names::Names;
use super::plan::{Plan, plans};
use super::service::Clients;
use super::settings::{Process, Protocol, Settings};
use super::status::{Question, Report, StatusSocket};
use super::{Agent, WAKE, monitor};
use crate::descriptors;
use crate::limits::BUFFERS;
use crate::logging::{self, AccessLog, Logging};
use crate::net::buffers::Pool as Buffers;
use crate::net::reactor::{Reactor, own_token};
use crate::plural::need_restart;
use crate::supervisor::Supervisor;
use crate::throttle::Throttle;
use log::{error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Relay buffers of one session: one for each direction, one for the beginning of a record.
const BUFFERS_EACH: usize = 3;

/// Ends or changes an agent from another thread.
#[derive(Clone)]
pub struct Handle {
    stop: Arc<OnceLock<&'static str>>,
    reloads: Sender<Vec<Plan>>,
    ask: Sender<Sender<Report>>,
    waker: Arc<mio::Waker>,
}

impl Handle {
    /// Asks the agent to end: what is in flight is delivered first. Errors: the agent is gone.
    pub fn stop(&self, why: &'static str) -> io::Result<()> {
        // The first reason is the one to tell.
        let _ = self.stop.set(why);
        self.waker.wake()
    }

    /// Asks it to have these services from now on. Errors: the agent is gone.
    fn reload(&self, plans: Vec<Plan>) -> io::Result<()> {
        self.reloads.send(plans).map_err(io::Error::other)?;
        self.waker.wake()
    }
}

/// Runs an agent in the foreground until SIGTERM or SIGINT. SIGHUP has it read its settings again, SIGUSR1 begin a new log
/// file.
pub fn run(arguments: &Arguments, logging: Logging) -> Result<(), StartError> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(system("no signal handler could be set"))?;
    // No program that it could ever run gets what this one has not. Where that is not permitted there is nothing to get.
    let _ = nix::sys::prctl::set_no_new_privs();
    let (process, services) = arguments.read()?;
    let (mut agent, handle) = Agent::new(services, Supervisor::from_environment())?;
    let question = || Question { waker: Arc::clone(&handle.waker), ask: handle.ask.clone() };
    let mut logs = vec![logging];
    if let Some(file) = &process.access_log {
        let failed = |cause| StartError::AccessLog { file: file.clone(), cause };
        let (access_log, logging) = AccessLog::start(file, arguments.log_format).map_err(failed)?;
        agent.access_log = Some(access_log);
        logs.push(logging);
    }
    if let Some(address) = process.metrics_listen {
        monitor::listen(address, question())?;
        info!("Metrics are at http://{address}/metrics");
    }
    let socket = arguments.socket.as_deref().filter(|_| arguments.command.is_none());
    // Taken away when all is over.
    let _socket = socket.map(|file| StatusSocket::open(file, question())).transpose()?;
    let supervisor = Arc::clone(&agent.supervisor);
    let attendant = Attendant { handle, arguments: arguments.clone(), process, supervisor, logs: logs.clone() };
    attendant.attend_to(signals).map_err(system("no thread for signals"))?;
    info!("{}", agent.summary());
    let ended = agent.run().map_err(system("the event loop failed"));
    logs.iter().skip(1).for_each(Logging::flush);
    ended?;
    info!("Stopped");
    Ok(())
}

/// What `run` would refuse to start with, without starting anything. Returns how many services there are.
pub fn check(arguments: &Arguments) -> Result<usize, StartError> {
    let (process, services) = arguments.read()?;
    if let Some(file) = &process.access_log {
        logging::can_be_opened(file).map_err(|cause| StartError::AccessLog { file: file.clone(), cause })?;
    }
    let plans = plans(services)?;
    taken(&process, &plans)
        .for_each(|problem| warn!("{problem}; that is no fault if this agent runs and listens there"));
    Ok(plans.len())
}

/// The addresses that cannot be listened on now. Which program has one is not known: it may be this agent.
fn taken<'a>(process: &'a Process, plans: &'a [Plan]) -> impl Iterator<Item = StartError> + 'a {
    let metrics = process.metrics_listen.and_then(|address| monitor::bind(address).err());
    let tunnels = plans.iter().filter(|plan| !plan.listen.is_empty());
    let tunnels = tunnels.filter_map(|plan| {
        let bound = Clients::listen(&plan.listen);
        bound.err().map(|cause| StartError::listen(&plan.settings, cause))
    });
    metrics.into_iter().chain(tunnels)
}

/// Does what signals ask for.
struct Attendant {
    handle: Handle,
    arguments: Arguments,
    /// What the process was started with: a reload does not change it.
    process: Process,
    supervisor: Arc<Supervisor>,
    logs: Vec<Logging>,
}

impl Attendant {
    /// In a thread of its own, until the agent is gone.
    fn attend_to(self, mut signals: Signals) -> io::Result<()> {
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let done = match signal {
                    SIGUSR1 => {
                        self.logs.iter().for_each(Logging::reopen);
                        Ok(())
                    }
                    SIGHUP => self.reload(),
                    _ => self.handle.stop(signal_name(signal).unwrap_or("a signal")),
                };
                if done.is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Reads everything again. Files and DNS are waited for here, and not in the event loop.
    fn reload(&self) -> io::Result<()> {
        self.supervisor.reloading();
        let read = self.arguments.read().map_err(StartError::from);
        match read.and_then(|(process, services)| Ok((process, plans(services)?))) {
            Ok((process, plans)) => {
                if let Some(stay) = need_restart(&self.process.needs_restart(&process)) {
                    warn!("{stay}");
                }
                self.handle.reload(plans)
            }
            Err(e) => {
                error!("Reload failed, nothing changed: {e}");
                self.supervisor.ready();
                Ok(())
            }
        }
    }
}

impl Agent {
    /// Binds the listening ends of tunnels. Nothing is dialled before [`Agent::run`].
    pub fn new(services: Vec<Settings>, supervisor: Supervisor) -> Result<(Self, Handle), StartError> {
        let plans = plans(services)?;
        let supervisor = Arc::new(supervisor);
        // Every line, and a local connection for each. What cannot be had shows when it is needed.
        descriptors::raise_limit();
        let buffers = Buffers::new(buffers(&plans), 0).map_err(system("no relay buffers"))?;
        let reactor = Reactor::new(buffers).map_err(system("no event loop"))?;
        let waker = mio::Waker::new(reactor.registry(), own_token(WAKE));
        let waker = Arc::new(waker.map_err(system("no event loop"))?);
        let (sender, reloads) = channel();
        let (ask, questions) = channel();
        let handle = Handle { stop: Arc::default(), reloads: sender, ask, waker: Arc::clone(&waker) };
        let mut agent = Self {
            services: BTreeMap::new(),
            next_id: 0,
            next_to_fill: 0,
            is_crowded: false,
            may_fill: true,
            reactor,
            names: Names::new(waker),
            stop: Arc::clone(&handle.stop),
            reloads,
            questions,
            ending: None,
            heartbeat: Box::new(supervisor.heartbeat()),
            supervisor,
            access_log: None,
            shortages: Throttle::default(),
        };
        agent.take_over(plans)?;
        Ok((agent, handle))
    }

    /// One line with what the agent is going to do.
    fn summary(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let what = match self.services.values().next() {
            Some(only) if only.settings.name.is_none() => only.summary(),
            _ => {
                let connections: usize =
                    self.services.values().map(|service| usize::from(service.settings.connections)).sum();
                format!("services: {}, connections: {connections}", self.services.len())
            }
        };
        format!("iofog-connector {version} agent: {what}")
    }
}

/// How many relay buffers there are: enough for all sessions of the only service. A list of services may grow later.
fn buffers(plans: &[Plan]) -> usize {
    match plans {
        // It may have more connections when they are needed: buffers that nobody uses take no memory.
        [only] if only.settings.name.is_none() && only.settings.protocol == Protocol::One => {
            (usize::from(only.settings.connections) * BUFFERS_EACH).clamp(2, BUFFERS)
        }
        _ => BUFFERS,
    }
}
