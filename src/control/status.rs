//! What `status` answers: the original's fields in the original's order, and ours behind them
//! (docs/protocol.md, section 3, "Status").
//!
//! Names are in lower case, as in a mapping's JSON. What belongs to one port of a private mapping ends in `port1` or
//! `port2`, as there.

use crate::failure::{millis, timestamp};
use crate::relay::command::{AgentCounts, PipeStatus, Totals};
use serde::Serialize;
use std::time::Duration;

/// The whole daemon.
#[derive(Serialize)]
pub(super) struct OfAll {
    id: &'static str,
    timestamp: u64,
    status: &'static str,
    mappings: usize,
    version: &'static str,
    #[serde(rename = "availablePorts")]
    available_ports: usize,
    /// Milliseconds.
    uptime: u64,
    inactive: usize,
    connections: usize,
    maxconnections: usize,
    controllers: usize,
    maxcontrollers: usize,
    buffers: usize,
    maxbuffers: usize,
    pauses: u64,
    agents: usize,
    free: usize,
    joined: usize,
    unauthorized: usize,
    rejected: u64,
    users: usize,
    waiting: usize,
    silent: usize,
    rejecting: usize,
    peers: usize,
    closing: usize,
    bytesport1: u64,
    bytesport2: u64,
    discarded: u64,
    unsettled: u64,
    /// Bytes a second.
    rateport1: u64,
    rateport2: u64,
    /// When the certificate ends, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificateend: Option<u64>,
}

impl OfAll {
    pub fn new(
        status: &'static str,
        mappings: usize,
        available_ports: usize,
        uptime: Duration,
        totals: &Totals,
    ) -> Self {
        let Totals { agents, users, traffic, rates, .. } = totals;
        Self {
            id: "all",
            timestamp: timestamp(),
            status,
            mappings,
            version: env!("CARGO_PKG_VERSION"),
            available_ports,
            uptime: uptime.as_millis() as u64,
            inactive: totals.inactive,
            connections: totals.connections,
            maxconnections: totals.most_connections,
            controllers: totals.controllers,
            maxcontrollers: crate::limits::API_CONNECTIONS,
            buffers: totals.buffers,
            maxbuffers: totals.most_buffers,
            pauses: totals.pauses,
            agents: agents.authorized,
            free: agents.free,
            joined: agents.joined(),
            unauthorized: agents.strangers,
            rejected: agents.rejected,
            users: users.all(),
            waiting: users.waiting,
            silent: users.silent,
            rejecting: totals.rejecting,
            peers: totals.peers,
            closing: totals.closing,
            bytesport1: traffic.forth,
            bytesport2: traffic.back,
            discarded: traffic.discarded,
            unsettled: traffic.unsettled,
            rateport1: rates.forth,
            rateport2: rates.back,
            certificateend: totals.expiry.map(|expiry| expiry.timestamp() * 1000),
        }
    }
}

/// One mapping.
#[derive(Serialize)]
pub(super) struct OfOne<'a> {
    id: &'a str,
    timestamp: u64,
    #[serde(flatten)]
    ends: Ends,
    #[serde(flatten)]
    traffic: Option<Traffic>,
}

/// Who is connected; the original named the ports after what they are for.
#[derive(Serialize)]
#[serde(untagged)]
enum Ends {
    Public {
        public: &'static str,
        private: &'static str,
        agents: usize,
        free: usize,
        joined: usize,
        unauthorized: usize,
        rejected: u64,
        users: usize,
        waiting: usize,
        silent: usize,
    },
    Private {
        private1: &'static str,
        private2: &'static str,
        agentsport1: usize,
        agentsport2: usize,
        freeport1: usize,
        freeport2: usize,
        joined: usize,
        unauthorizedport1: usize,
        unauthorizedport2: usize,
        rejectedport1: u64,
        rejectedport2: u64,
    },
    /// A direct entry has no ports.
    Direct {},
}

/// What has been carried since the mapping was opened.
#[derive(Serialize)]
struct Traffic {
    bytesport1: u64,
    bytesport2: u64,
    discarded: u64,
    unsettled: u64,
    /// Milliseconds since the epoch; absent while nothing is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

impl<'a> OfOne<'a> {
    pub fn public(id: &'a str, status: &PipeStatus) -> Self {
        let PipeStatus { bound: [private, public], agents: [agents, _], users, .. } = status;
        let ends = Ends::Public {
            public: state(*public),
            private: state(*private),
            agents: agents.authorized,
            free: agents.free,
            joined: agents.joined(),
            unauthorized: agents.strangers,
            rejected: agents.rejected,
            users: users.all(),
            waiting: users.waiting,
            silent: users.silent,
        };
        Self::new(id, ends, Some(status))
    }

    pub fn private(id: &'a str, status: &PipeStatus) -> Self {
        let [private1, private2] = status.bound.map(state);
        let [one, two]: [AgentCounts; 2] = status.agents;
        let ends = Ends::Private {
            private1,
            private2,
            agentsport1: one.authorized,
            agentsport2: two.authorized,
            freeport1: one.free,
            freeport2: two.free,
            // They come in pairs.
            joined: one.joined(),
            unauthorizedport1: one.strangers,
            unauthorizedport2: two.strangers,
            rejectedport1: one.rejected,
            rejectedport2: two.rejected,
        };
        Self::new(id, ends, Some(status))
    }

    pub fn direct(id: &'a str) -> Self {
        Self::new(id, Ends::Direct {}, None)
    }

    fn new(id: &'a str, ends: Ends, status: Option<&PipeStatus>) -> Self {
        let traffic = status.map(|PipeStatus { traffic, since, .. }| Traffic {
            bytesport1: traffic.forth,
            bytesport2: traffic.back,
            discarded: traffic.discarded,
            unsettled: traffic.unsettled,
            since: since.map(millis),
        });
        Self { id, timestamp: timestamp(), ends, traffic }
    }
}

/// Whether a port is bound, in the words of the original.
pub(super) fn state(is_bound: bool) -> &'static str {
    if is_bound { "Active" } else { "Inactive" }
}
