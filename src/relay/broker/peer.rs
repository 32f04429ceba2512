//! A connection at the broker's port. No I/O.

use super::request::{Collector, Request};
use crate::limits::BROKER_REQUEST_TIME;
use crate::relay::queue::Ticket;
use std::time::Instant;

/// A connection at the broker's port.
pub(crate) enum Peer {
    /// Too much has failed in its network: not looked at before `until`. `request`: what it wants, if it has said so.
    Deferred { ticket: Ticket, until: Instant, request: Option<Box<Request>> },
    /// Its request is to come.
    Asking { ticket: Ticket, until: Instant, collector: Collector },
    /// The first peer of the entry `id`.
    Waiting { ticket: Ticket, until: Instant, id: String },
    /// Has been told of the other one, and has the time to use it.
    Introduced { ticket: Ticket, until: Instant },
}

impl Peer {
    pub(super) fn asking(ticket: Ticket, now: Instant) -> Self {
        Self::Asking { ticket, until: now + BROKER_REQUEST_TIME, collector: Collector::default() }
    }

    pub(in crate::relay) fn deadline(&self) -> Instant {
        match self {
            Self::Deferred { until, .. }
            | Self::Asking { until, .. }
            | Self::Waiting { until, .. }
            | Self::Introduced { until, .. } => *until,
        }
    }
}
