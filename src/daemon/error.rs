//! Why the daemon did not start, or ended early, and the exit status for it.

use super::pidfile::LockError;
use super::privileges::PrivilegeError;
use crate::config::ConfigError;
use crate::control::TokenError;
use crate::exit;
use crate::net::certificate::CertificateError;
use crate::store::LoadError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

#[derive(Debug)]
pub enum StartError {
    /// Another daemon of these settings runs, or there is no pid file.
    PidFile(LockError),
    User(PrivilegeError),
    /// The log file cannot be opened.
    Log {
        file: PathBuf,
        cause: io::Error,
    },
    Config(ConfigError),
    Certificate(CertificateError),
    Token(TokenError),
    /// The mappings could not be read.
    Store(LoadError),
    /// There is no room for so many relay buffers.
    Buffers {
        settings: PathBuf,
        cause: io::Error,
    },
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
    /// The control thread has ended though nobody told it to; what it said is in the log.
    Died,
}

impl StartError {
    /// The exit status ([`crate::exit`]).
    pub fn status(&self) -> u8 {
        match self {
            // The daemon that was wanted is there.
            Self::PidFile(LockError::Held) => exit::OK,
            Self::PidFile(LockError::System { .. }) | Self::Log { .. } => exit::CANNOT_CREATE,
            Self::User(PrivilegeError::NoSuchUser(_)) => exit::NO_USER,
            Self::User(PrivilegeError::NotRoot(_)) => exit::NOT_PERMITTED,
            Self::User(PrivilegeError::System { .. }) | Self::System { .. } => exit::SYSTEM,
            Self::Config(_) | Self::Certificate(_) | Self::Token(_) | Self::Store(_) | Self::Buffers { .. } => {
                exit::CONFIG
            }
            Self::Api { cause, .. } if cause.kind() == ErrorKind::PermissionDenied => exit::NOT_PERMITTED,
            Self::Api { .. } => exit::UNAVAILABLE,
            Self::Died => exit::SOFTWARE,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PidFile(e) => e.fmt(f),
            Self::User(e) => e.fmt(f),
            Self::Log { file, cause } => write!(f, "{}: the log file cannot be opened: {cause}", file.display()),
            Self::Config(e) => e.fmt(f),
            Self::Certificate(e) => e.fmt(f),
            Self::Token(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
            Self::Buffers { settings, cause } => {
                write!(
                    f,
                    "{}: the relay buffers cannot be set aside: {cause}. Key \"buffers\" says how many",
                    settings.display()
                )
            }
            Self::Api { port, cause } => {
                write!(f, "the API port {port} could not be bound: {cause}. ")?;
                if cause.kind() == ErrorKind::PermissionDenied {
                    f.write_str("Ports below 1024 need root or CAP_NET_BIND_SERVICE; ")?;
                }
                if cause.kind() == ErrorKind::AddrNotAvailable {
                    return f.write_str("`listen` is no address of this machine");
                }
                f.write_str("`apiport` names another one")
            }
            Self::System { what, cause } => write!(f, "{what}: {cause}"),
            Self::Died => f.write_str("the control thread has died"),
        }
    }
}

impl std::error::Error for StartError {}
