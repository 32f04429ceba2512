//! The daemon and its mappings in figures, each of them once: what `status` and `/metrics` tell.

use crate::limits::API_CONNECTIONS;
use crate::relay::command::{AgentCounts, Totals, Traffic, UserCounts};

/// One figure: its key in `status`, its metric and what that means, and where the number is found. Metrics that end in
/// `_total` only ever grow while the daemon runs.
pub(super) struct Figure<T> {
    pub key: &'static str,
    pub metric: &'static str,
    pub help: &'static str,
    pub value: fn(&T) -> u64,
}

const fn figure<T>(key: &'static str, metric: &'static str, help: &'static str, value: fn(&T) -> u64) -> Figure<T> {
    Figure { key, metric, help, value }
}

/// Of the daemon alone.
pub(super) const DAEMON: &[Figure<Totals>] = &[
    figure("inactive", "mappings_inactive", "Mappings of which a port could not be bound.", |t| t.inactive as u64),
    figure("connections", "connections", "TCP connections, those of the API not counted.", |t| t.connections as u64),
    figure("maxconnections", "connections_limit", "TCP connections at most, those of the API not counted.", |t| {
        t.most_connections as u64
    }),
    figure("controllers", "api_connections", "TCP connections of Controllers.", |t| t.controllers as u64),
    figure("maxcontrollers", "api_connections_limit", "TCP connections of Controllers at most.", |_| {
        API_CONNECTIONS as u64
    }),
    figure("buffers", "buffers", "Relay buffers in use.", |t| t.buffers as u64),
    figure("maxbuffers", "buffers_limit", "Relay buffers that there are.", |t| t.most_buffers as u64),
    figure("pauses", "accept_pauses_total", "How often no more connections could be accepted.", |t| t.pauses),
    figure("rejecting", "rejecting", "Rejected connections that are still to be closed.", |t| t.rejecting as u64),
    figure("peers", "broker_peers", "Connections at the broker.", |t| t.peers as u64),
    figure("closing", "closing", "Connections that only get what is left for them.", |t| t.closing as u64),
];

pub(super) const AGENTS: &[Figure<AgentCounts>] = &[
    figure("agents", "agents", "Authorized agent connections.", |a| a.authorized as u64),
    figure("free", "agents_free", "Authorized agent connections that are without a partner.", |a| a.free as u64),
    figure(
        "unauthorized",
        "agents_unauthorized",
        "Connections at agent ports that have not sent a passcode yet.",
        |a| a.unauthenticated as u64,
    ),
    figure("rejected", "rejected_passcodes_total", "Connections closed for a wrong passcode.", |a| a.rejected),
];

pub(super) const USERS: &[Figure<UserCounts>] = &[
    figure("users", "users", "User connections.", |u| u.all() as u64),
    figure("waiting", "users_waiting", "Users that wait for a free agent connection.", |u| u.waiting as u64),
    figure("silent", "users_silent", "Users that have not sent a byte yet.", |u| u.silent as u64),
];

pub(super) const TRAFFIC: &[Figure<Traffic>] = &[
    figure(
        "bytesport1",
        "port1_received_bytes_total",
        "Deprecated, see received_bytes_total: payload that came in at port1 and was relayed.",
        |t| t.port1_rx,
    ),
    figure(
        "bytesport2",
        "port2_received_bytes_total",
        "Deprecated, see received_bytes_total: payload that came in at port2 and was relayed.",
        |t| t.port2_rx,
    ),
    figure("discarded", "discarded_bytes_total", "Payload of agents that were without a partner.", |t| t.discarded),
    figure("unsettled", "unsettled_agents_total", "Agents that sent payload while without a partner.", |t| t.unsettled),
];
