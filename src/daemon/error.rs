//! Why the daemon did not start, or ended early, and the exit status for it.

use super::pidfile::LockError;
use super::privileges::PrivilegeError;
use crate::config::ConfigError;
use crate::control::TokenError;
use crate::exit;
use crate::limits::BUFFER;
use crate::net::certificate::CertificateError;
use crate::store::LoadError;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another daemon of these settings runs, or there is no pid file.
    #[error(transparent)]
    PidFile(#[from] LockError),
    #[error(transparent)]
    User(#[from] PrivilegeError),
    /// The option would have the log written into another file of the daemon's.
    #[error("--log-file: the daemon needs {file} for something else; expected a file of its own")]
    LogIsTaken { file: PathBuf },
    #[error("{file}: the log file cannot be opened: {cause}")]
    Log { file: PathBuf, cause: io::Error },
    #[error("{file} (key \"accesslog\"): the file cannot be opened: {cause}")]
    AccessLog { file: PathBuf, cause: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The mappings could not be read.
    #[error(transparent)]
    Store(#[from] LoadError),
    #[error(
        "{settings}: no memory for {count} relay buffers, {} MiB: {cause}. Set fewer (key \"buffers\")",
        (*count as u64 * BUFFER as u64) >> 20
    )]
    Buffers { settings: PathBuf, count: usize, cause: io::Error },
    #[error("the API port {port} could not be bound: {cause}. {}", api_port_remedy(cause.kind()))]
    Api { port: u16, cause: io::Error },
    /// The system refuses something that every daemon needs.
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

impl StartError {
    /// The exit status ([`crate::exit`]).
    pub fn status(&self) -> u8 {
        match self {
            // The daemon that was wanted is there.
            Self::PidFile(LockError::Held) => exit::OK,
            Self::PidFile(LockError::System { .. }) | Self::Log { .. } | Self::AccessLog { .. } => exit::CANNOT_CREATE,
            Self::LogIsTaken { .. } => exit::USAGE,
            Self::User(PrivilegeError::NoSuchUser(_)) => exit::NO_USER,
            Self::User(PrivilegeError::NotRoot(_)) => exit::NOT_PERMITTED,
            Self::User(PrivilegeError::System { .. }) | Self::System { .. } => exit::SYSTEM,
            Self::Config(_) | Self::Certificate(_) | Self::Token(_) | Self::Store(_) | Self::Buffers { .. } => {
                exit::CONFIG
            }
            Self::Api { cause, .. } if cause.kind() == ErrorKind::PermissionDenied => exit::NOT_PERMITTED,
            Self::Api { .. } => exit::UNAVAILABLE,
        }
    }
}

fn api_port_remedy(problem: ErrorKind) -> &'static str {
    match problem {
        ErrorKind::PermissionDenied => {
            "Ports below 1024 need root or CAP_NET_BIND_SERVICE; set `apiport` to another port"
        }
        ErrorKind::AddrNotAvailable => "`listen` is no address of this machine",
        _ => "set `apiport` to another port",
    }
}
