//! `iofog-connector.conf`: read, validate, explain what is wrong.
//!
//! Pure: a path in, a validated [`Config`] or a [`ConfigError`] out. Nothing is opened but the file
//! itself, nothing is bound, nothing is logged; what to do about an error is the caller's business
//! (the daemon exits with status 78, EX_CONFIG).

pub(crate) mod json;
mod keys;
pub(crate) mod value;

use crate::cidr::Cidr;
use crate::files;
use crate::layout::{Layout, folder_of, is_one_file};
use crate::limits::CONFIG_FILE;
use crate::ports::PortSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Each has one for agents, and another one for agents or users.
const PORTS_OF_A_MAPPING: usize = 2;

/// The settings of a daemon, complete and consistent (docs/protocol.md, "Files").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The settings file; what the operator writes is looked up beside it.
    pub file: PathBuf,
    /// The folder of what the daemon writes.
    pub state: PathBuf,
    /// Ports that mappings may have: `ports` minus `exclude`, minus the API's and the broker's own.
    pub ports: PortSet,
    /// Port of the peer-to-peer broker; `None` = no broker.
    pub broker: Option<u16>,
    /// Where the command line finds the daemon's API: an address or a name.
    pub address: String,
    /// Plain TCP and HTTP everywhere instead of TLS.
    pub dev: bool,
    /// Local address that all ports bind to; `None` = every IPv6 and IPv4 address.
    pub listen: Option<IpAddr>,
    /// Port of the control API.
    pub api_port: u16,
    /// Who may call the API; `None` = everybody.
    pub controllers: Option<Vec<Cidr>>,
    /// PEM file with the authority that must have signed a Controller's certificate.
    pub controller_ca: Option<PathBuf>,
    /// File with the bearer token that every API call must carry.
    pub api_token: Option<PathBuf>,
    /// Proxies in front of the user ports, whose users begin with a PROXY header.
    pub trust_proxy: Vec<Cidr>,
    /// Where metrics, status and health are served to whoever comes; `None` = only at the API's port.
    pub metrics_listen: Option<SocketAddr>,
    /// Most TCP connections at once; `None` = as many as the descriptor limit allows.
    pub connections: Option<usize>,
    /// How many relay buffers are preallocated; `None` = a default that fits `connections`.
    pub buffers: Option<usize>,
    /// Where the log goes; `None` = standard error.
    pub log_file: Option<PathBuf>,
    /// Where each session gets a line; `None` = nowhere.
    pub access_log: Option<PathBuf>,
}

impl Config {
    /// Reads and validates the settings file of `layout`.
    pub fn load(layout: &Layout) -> Result<Self, ConfigError> {
        let file = &layout.settings;
        let text = files::read(file, CONFIG_FILE);
        Self::parse(layout, &text.map_err(|cause| ConfigError::Unreadable { file: file.clone(), cause })?)
    }

    /// Validates `text` as the content of the settings file of `layout`.
    pub fn parse(layout: &Layout, text: &[u8]) -> Result<Self, ConfigError> {
        let file = &layout.settings;
        let keys = keys::parse(text).map_err(|fault| ConfigError::Invalid { file: file.to_owned(), fault })?;
        let api_port = keys.api_port();
        let ports = keys.usable_ports();
        let path = |name: PathBuf| folder_of(file).join(name);
        let config = Self {
            ports,
            broker: keys.broker,
            address: keys.address.unwrap_or_else(|| "127.0.0.1".to_owned()),
            dev: keys.dev.unwrap_or(false),
            listen: keys.listen,
            api_port,
            controllers: keys.controllers,
            controller_ca: keys.controllerca.map(path),
            api_token: keys.apitoken.map(path),
            trust_proxy: keys.trustproxy,
            metrics_listen: keys.metricslisten,
            connections: keys.connections,
            buffers: keys.buffers,
            log_file: keys.logfile.map(path),
            access_log: keys.accesslog.map(path),
            file: file.to_owned(),
            state: layout.state.clone(),
        };
        match config.log_over_another_file(layout) {
            Some((key, taken)) => Err(ConfigError::LogIsTaken { file: file.to_owned(), key, taken }),
            None => Ok(config),
        }
    }

    /// A log that would be written into one of the daemon's other files: its key, and that file.
    fn log_over_another_file(&self, layout: &Layout) -> Option<(&'static str, PathBuf)> {
        let logs = [("logfile", &self.log_file), ("accesslog", &self.access_log)];
        let others: Vec<PathBuf> = layout.own_files().chain(self.named_files()).collect();
        let of_log = |(key, log): (&'static str, &Option<PathBuf>)| {
            let log = log.as_ref()?;
            let other_log = self.log_file.as_ref().filter(|_| key != "logfile");
            let taken = others.iter().chain(other_log).find(|other| is_one_file(log, other))?;
            Some((key, taken.clone()))
        };
        logs.into_iter().find_map(of_log)
    }

    /// The files that the settings name, and that are read.
    fn named_files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.api_token, &self.controller_ca].into_iter().flatten().cloned()
    }

    /// The folder of what the operator writes.
    pub fn folder(&self) -> &Path {
        folder_of(&self.file)
    }

    /// The path of `name`, one of the files that the daemon writes.
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// What is allowed, and seldom meant: said at the start and by `check`.
    pub fn warnings(&self) -> Vec<String> {
        let Self { dev, listen, api_port, controllers, controller_ca, api_token, ports, .. } = self;
        let is_open = controllers.is_none() && controller_ca.is_none() && api_token.is_none();
        let open = is_open.then(|| {
            format!(
                "everybody who can connect to port {api_port} may open and close mappings, and every user of this \
                 machine may stop the daemon: set `controllers`, `controllerca` or `apitoken`"
            )
        });
        let plain = (*dev && listen.is_none()).then(|| {
            "`dev` without `listen`: all ports are open to the network, and passcodes and payload are not encrypted; \
             set `listen` to \"127.0.0.1\", or use TLS"
                .to_owned()
        });
        let few = (ports.len() < PORTS_OF_A_MAPPING).then(|| format!("`ports`: {}", self.few_ports()));
        [open, plain, few].into_iter().flatten().map(|warning| format!("{}: {warning}", self.file.display())).collect()
    }

    /// Why no mapping could be added, where that is so.
    fn few_ports(&self) -> String {
        let left = self.ports.len();
        format!("a mapping takes two, and {left} is left after `exclude`, `apiport`, `broker` and `metricslisten`")
    }

    /// A fault in the eyes of `check`: no mapping can ever be added.
    pub fn has_too_few_ports(&self) -> bool {
        self.ports.len() < PORTS_OF_A_MAPPING
    }

    /// The keys in which `new` differs and that only a restart can change, as they stand in the file.
    /// All other keys can be taken over by a running daemon.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        [
            ("broker", self.broker != new.broker),
            ("dev", self.dev != new.dev),
            ("listen", self.listen != new.listen),
            ("apiport", self.api_port != new.api_port),
            ("metricslisten", self.metrics_listen != new.metrics_listen),
            ("connections", self.connections != new.connections),
            ("buffers", self.buffers != new.buffers),
            ("logfile", self.log_file != new.log_file),
            ("accesslog", self.access_log != new.access_log),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }
}

/// Why the settings cannot be used. Its `Display` is one line that names the file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("{file}: cannot be read: {cause}")]
    Unreadable { file: PathBuf, cause: io::Error },
    /// A log would be written into another file of the daemon's.
    #[error("{file}: key \"{key}\": the daemon needs {taken} for something else; expected a file of its own")]
    LogIsTaken { file: PathBuf, key: &'static str, taken: PathBuf },
    /// The file was read and something in it is wrong.
    #[error("{file}, {fault}")]
    Invalid { file: PathBuf, fault: SettingsFault },
}

/// The file of the daemon's, as far as they are known, that a log in `log` would be written into.
pub fn file_under_log(log: &Path, layout: &Layout, config: Option<&Config>) -> Option<PathBuf> {
    let named = config.into_iter().flat_map(|config| config.named_files().chain(config.access_log.clone()));
    layout.own_files().chain(named).find(|file| is_one_file(log, file))
}

/// What is wrong in a settings file, and where.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct SettingsFault {
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1; that of the last byte that was read when the fault showed.
    pub column: usize,
    /// The key concerned, unless the fault is in the JSON itself, what was found, and what was expected.
    pub problem: String,
}

#[cfg(test)]
mod tests;
