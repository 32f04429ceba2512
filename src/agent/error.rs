//! Why an agent did not start, in words that say what to do.

use super::settings::{Settings, SettingsError};
use super::target::Target;
use crate::exit;
use crate::net::trust::TrustError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why an agent did not start, or ended early.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// `--listen`, or the key, names an address that cannot be listened on.
    #[error("{option}: {on} cannot be listened on: {cause}")]
    Listen { option: String, on: Target, cause: io::Error },
    /// The socket of `agent status`.
    #[error("--socket: {} cannot be listened on: {cause}", file.display())]
    Socket { file: PathBuf, cause: io::Error },
    /// The key `metricslisten`.
    #[error("metricslisten: {address} cannot be listened on: {cause}")]
    Metrics { address: SocketAddr, cause: io::Error },
    /// The key `accesslog`.
    #[error("accesslog: {} cannot be written: {cause}", file.display())]
    AccessLog { file: PathBuf, cause: io::Error },
    /// The system refuses something that every agent needs.
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

impl StartError {
    pub(super) fn listen(settings: &Settings, cause: io::Error) -> Self {
        let option = match &settings.name {
            Some(name) => format!("service {name:?}, key \"listen\""),
            None => "--listen".to_owned(),
        };
        Self::Listen { option, on: settings.target.clone(), cause }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings(e) => e.status(),
            Self::Trust(_) => exit::CONFIG,
            Self::Listen { cause, .. } | Self::Metrics { cause, .. }
                if cause.kind() == io::ErrorKind::PermissionDenied =>
            {
                exit::NOT_PERMITTED
            }
            Self::Listen { .. } | Self::Metrics { .. } => exit::UNAVAILABLE,
            Self::Socket { .. } | Self::AccessLog { .. } => exit::CANNOT_CREATE,
            Self::System { .. } => exit::SYSTEM,
        }
    }
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |cause| StartError::System { what, cause }
}
