//! What has to be found out before a service can be taken over: TLS set up, the names of its own side looked up.
//!
//! This reads files and may wait for DNS: it is done before the loop runs, and in another thread when it does.

use super::error::StartError;
use super::settings::{Role, Security, Settings};
use crate::net::trust::{self, Trust};
use crate::plural::counted;
use crate::secret::Secret;
use log::warn;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A service that only has to be begun.
#[derive(Clone)]
pub struct Plan {
    pub(super) settings: Settings,
    /// `None`: dev mode.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Where clients of a tunnel's listening end connect to, one of these.
    pub(super) listen: Vec<SocketAddr>,
}

/// Plans for all of them. Those who trust the same share what is set up for that: a system's list of authorities takes
/// hundreds of kilobytes.
pub fn plans(services: Vec<Settings>) -> Result<Vec<Plan>, StartError> {
    let mut set_up = SetUp::default();
    services.into_iter().map(|settings| plan(settings, &mut set_up)).collect()
}

type SetUp = HashMap<Arc<Trust>, Arc<ClientConfig>>;

fn plan(settings: Settings, set_up: &mut SetUp) -> Result<Plan, StartError> {
    warn_of_passcode(&settings);
    let tls = match &settings.security {
        Security::Dev => None,
        Security::Tls { trust, .. } => Some(match set_up.get(trust) {
            Some(config) => Arc::clone(config),
            None => {
                let config = trust::client_config(trust, None)?;
                set_up.insert(Arc::clone(trust), Arc::clone(&config));
                config
            }
        }),
    };
    let listen = match settings.role {
        Role::Expose => Vec::new(),
        Role::Listen => settings.target.look_up().map_err(|cause| StartError::listen(&settings, cause))?,
    };
    Ok(Plan { settings, tls, listen })
}

/// A Connector waits for the rest of a passcode that is too short: all that would be heard of it is silence.
fn warn_of_passcode(settings: &Settings) {
    let length = settings.passcode.expose().len();
    if length != Secret::RANDOM {
        let place = settings.name.as_deref().map(|name| format!("Service {name:?}: ")).unwrap_or_default();
        let bytes = counted(length, "byte");
        warn!("{place}the passcode has {bytes}, those of Connectors have {}: is it complete?", Secret::RANDOM);
    }
}
