//! What the settings ask of the machine, and of each other: `start` and `check` go by the same answers.

use super::StartError;
use crate::config::Config;
use crate::descriptors;
use crate::limits::{API_CONNECTIONS, BUFFERS, CONNECTIONS_LEFT, MONITORS};
use crate::mapping::Mapping;
use crate::net::buffers::Pool;
use crate::relay;

/// Descriptors that are not connections: files, epoll, and three for each connection of the API.
const RESERVED: usize = 64 + 3 * (API_CONNECTIONS + MONITORS);

/// What there is room for.
pub struct Capacity {
    pub connections: usize,
    /// Descriptors for these and for ports.
    pub sockets: usize,
    pub buffers: Pool,
}

impl Capacity {
    /// What the settings ask for. Raises the descriptor limit as far as allowed.
    ///
    /// # Errors
    /// There is no room for the buffers.
    pub fn of(config: &Config) -> Result<Self, StartError> {
        let descriptors = descriptors();
        let connections = config.connections.unwrap_or(usize::MAX).min(most_connections(descriptors));
        let sockets = descriptors.saturating_sub(RESERVED).max(2 * CONNECTIONS_LEFT);
        let count = config.buffers.unwrap_or(connections.min(BUFFERS));
        let buffers = relay::reserve_buffers(count);
        let buffers = buffers.map_err(|cause| StartError::Buffers { settings: config.file.clone(), count, cause })?;
        Ok(Self { connections, sockets, buffers })
    }
}

/// That the settings ask for more connections than there can be.
pub fn too_many_connections(config: &Config) -> Option<String> {
    let (connections, descriptors) = (config.connections?, descriptors());
    let most = most_connections(descriptors);
    (connections > most).then(|| {
        let file = config.file.display();
        format!(
            "{file}: `connections` is {connections}, but the limit of {descriptors} open files allows {most}, which is \
             what is used; raise it (LimitNOFILE= of systemd, ulimit -n)"
        )
    })
}

/// Ports of stored mappings that can never be bound, because the daemon needs them itself.
pub fn conflicts<'a>(config: &'a Config, mappings: &'a [Mapping]) -> impl Iterator<Item = String> + 'a {
    mappings.iter().flat_map(move |mapping| {
        mapping.ports().into_iter().flatten().filter_map(move |port| {
            let metrics = config.metrics_listen.map(|address| address.port());
            let own = [("apiport", Some(config.api_port)), ("broker", config.broker), ("metricslisten", metrics)];
            own.into_iter().find(|(_, own)| *own == Some(port)).map(|(key, _)| {
                format!(
                    "port {port} of the mapping {} is the daemon's own (key \"{key}\"): another one is needed there",
                    mapping.id
                )
            })
        })
    })
}

/// Stored mappings that ask for what the mode does not have. They are opened all the same, as the mode has it.
pub fn misfits<'a>(config: &'a Config, mappings: &'a [Mapping]) -> impl Iterator<Item = String> + 'a {
    let of_one = |mapping: &Mapping| {
        let (key, why) = mapping.options.not_in_dev_mode()?;
        Some(format!("mapping {}: its key \"{key}\" has no effect: {why}", mapping.id))
    };
    mappings.iter().filter(|_| config.dev).filter_map(of_one)
}

/// How many there may be. Raises the limit as far as allowed.
fn descriptors() -> usize {
    usize::try_from(descriptors::raise_limit()).unwrap_or(usize::MAX)
}

/// How many connections there may be: an eighth of the descriptors is left for listeners, two a mapping.
fn most_connections(descriptors: usize) -> usize {
    (descriptors - descriptors / 8).saturating_sub(RESERVED).max(CONNECTIONS_LEFT)
}
