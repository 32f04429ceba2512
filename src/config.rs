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
use crate::layout::{Layout, folder_of};
use crate::limits::CONFIG_FILE;
use crate::ports::PortSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

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
    /// Most TCP connections at once; `None` = as many as the descriptor limit allows.
    pub connections: Option<usize>,
    /// How many relay buffers are preallocated; `None` = a default that fits `connections`.
    pub buffers: Option<usize>,
    /// Where the log goes; `None` = standard error.
    pub log_file: Option<PathBuf>,
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
        Ok(Self {
            ports,
            broker: keys.broker,
            address: keys.address.unwrap_or_else(|| "127.0.0.1".to_owned()),
            dev: keys.dev.unwrap_or(false),
            listen: keys.listen,
            api_port,
            controllers: keys.controllers,
            controller_ca: keys.controllerca.map(path),
            api_token: keys.apitoken.map(path),
            connections: keys.connections,
            buffers: keys.buffers,
            log_file: keys.logfile.map(path),
            file: file.to_owned(),
            state: layout.state.clone(),
        })
    }

    /// The folder of what the operator writes.
    pub fn folder(&self) -> &Path {
        folder_of(&self.file)
    }

    /// The path of `name`, one of the files that the daemon writes.
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The keys in which `new` differs and that only a restart can change, as they stand in the file.
    /// All other keys can be taken over by a running daemon.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        [
            ("broker", self.broker != new.broker),
            ("dev", self.dev != new.dev),
            ("listen", self.listen != new.listen),
            ("apiport", self.api_port != new.api_port),
            ("connections", self.connections != new.connections),
            ("buffers", self.buffers != new.buffers),
            ("logfile", self.log_file != new.log_file),
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
    /// The file was read and something in it is wrong.
    #[error("{file}, {fault}")]
    Invalid { file: PathBuf, fault: LinkError },
}

/// What is wrong in a settings file, and where.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct LinkError {
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1; that of the last byte that was read when the fault showed.
    pub column: usize,
    /// The key concerned, unless the fault is in the JSON itself, what was found, and what was expected.
    pub problem: String,
}

#[cfg(test)]
mod tests;
