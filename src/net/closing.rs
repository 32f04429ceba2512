//! The end of a link, whatever the reason.
//!
//! Closing a socket that has unread bytes makes the kernel reset it, and the peer may lose the end of what it
//! was sent. So: what is held goes out, then close_notify, then FIN, and the peer's own FIN is awaited for a while.
//!
//! Who owns the link has left its state before, and removes it from the reactor when this is over.

use super::buffers::Desk;
use super::link::{Fault, Got, Link};
use crate::limits::{DELIVERY, LINGER, LINGER_BYTES};
use std::time::Instant;

/// How far the closing of a link has come.
#[derive(Debug)]
pub enum Closing {
    /// Done for; what is held still goes out.
    Delivering { since: Instant },
    /// close_notify is on its way out; FIN follows.
    Parting { since: Instant },
    /// FIN is out; waiting for the peer's. `patience`: bytes that are still thrown away for it.
    Lingering { until: Instant, patience: usize, delivery: Delivery },
}

/// How what the kernel has of ours comes along.
#[derive(Debug)]
pub struct Delivery {
    /// Bytes that the peer has not acknowledged.
    unsent: usize,
    /// When they last became fewer.
    since: Instant,
}

impl Closing {
    /// The first step.
    pub fn begin(now: Instant) -> Self {
        Self::Delivering { since: now }
    }

    /// Nothing left to wait for: due to be removed.
    pub fn overdue(now: Instant) -> Self {
        Self::Lingering { until: now, patience: 0, delivery: Delivery { unsent: 0, since: now } }
    }

    /// When to ask [`Closing::is_over`].
    pub fn deadline(&self, link: &Link) -> Instant {
        match self {
            Self::Delivering { since } | Self::Parting { since } => (*since).max(link.told) + DELIVERY,
            Self::Lingering { until, .. } => *until,
        }
    }

    /// The deadline has come: the link can be removed, unless a close would now take from a slow reader what is
    /// still on its way to it. That happens if it has sent more than we throw away: the kernel resets the connection.
    pub fn is_over(&mut self, link: &Link, now: Instant) -> bool {
        let Self::Lingering { until, delivery, .. } = self else { return true };
        let unsent = if link.may_read() { link.unsent() } else { 0 };
        if unsent < delivery.unsent {
            *delivery = Delivery { unsent, since: now };
        }
        *until = now + LINGER;
        unsent == 0 || now >= delivery.since + DELIVERY
    }

    /// Goes on as far as the kernel lets it. True, and errors: the link can be removed.
    pub fn proceed(&mut self, link: &mut Link, desk: &mut Desk, now: Instant) -> Result<bool, Fault> {
        if !link.flush(&mut desk.pool, now)? {
            return Ok(false);
        }
        if let Self::Delivering { .. } = self {
            link.say_goodbye(desk, now)?;
            *self = Self::Parting { since: now };
        }
        if !link.is_flushed() {
            return Ok(false);
        }
        if let Self::Parting { .. } = self {
            link.stream().shutdown_write()?;
            let delivery = Delivery { unsent: link.unsent(), since: now };
            *self = Self::Lingering { until: now + LINGER, patience: LINGER_BYTES, delivery };
        }
        if let Self::Lingering { patience, .. } = self {
            while *patience > 0 {
                match link.drain(desk, now)? {
                    (Got::Some, count) => *patience = patience.saturating_sub(count),
                    (got, _) => return Ok(got == Got::End),
                }
            }
        }
        Ok(link.is_reset() || link.unsent() == 0)
    }
}

/// Ends a link now, with FIN rather than a reset as far as one read can help it.
pub fn end_at_once(link: &mut Link, desk: &mut Desk, now: Instant) {
    // Whatever goes wrong here goes wrong on a connection that is closed anyway.
    let _ = link.drain(desk, now);
    if link.is_open() && link.is_flushed() {
        let _ = link.say_goodbye(desk, now);
    }
    let _ = link.stream().shutdown_write();
}
