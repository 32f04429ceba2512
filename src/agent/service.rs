//! One service of the agent: what it is told to do, its places, its near side, and what the log has said of it.

use super::failure::Failure;
use super::figures::Figures;
use super::plan::Plan;
use super::pool::Pool;
use super::settings::{Protocol, Role, Security, Settings};
use super::state::ServiceId;
use super::usage::Usage;
use crate::net::tcp;
use crate::plural::counted;
use crate::throttle::{Throttle, Throttles, and_more};
use log::warn;
use mio::net::TcpListener;
use rustls::ClientConfig;
use std::fmt;
use std::io;
use std::mem::Discriminant;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A service, as the loop works on it.
pub(super) struct Service {
    pub(super) id: ServiceId,
    pub(super) settings: Settings,
    /// `None`: dev mode.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) pool: Pool,
    /// In dev mode, from when on the Connector is asked whether it marks where payload begins.
    pub(super) ask_again: Instant,
    /// From when on it is asked whether it speaks version 2; `None`: it never is.
    pub(super) hello_again: Option<Instant>,
    /// It does, as far as is known.
    pub(super) knows_frames: bool,
    /// Places that wait for the Connector's addresses.
    pub(super) asking: Vec<usize>,
    /// `None`: lines are joined to the local service.
    pub(super) clients: Option<Clients>,
    pub(super) usage: Usage,
    pub(super) figures: Figures,
    /// In a box: with it a service would take the allocator's next size, which is twice as large.
    pub(super) log: Box<Log>,
}

/// Local clients of a tunnel's listening end.
pub(super) struct Clients {
    /// `None`: the agent is ending.
    pub(super) listener: Option<TcpListener>,
    /// Where clients connect to.
    pub(super) address: SocketAddr,
    /// Clients that wait for a line.
    pub(super) waiting: usize,
    /// Accepting failed, for want of descriptors say: no event tells when it is worth another try.
    pub(super) retry: bool,
}

/// What the log has said, so that it is said once and not a thousand times a second.
#[derive(Default)]
pub(super) struct Log {
    /// The operator has been told that there is a connection, and not yet that there is none.
    pub(super) connected: bool,
    /// The Connector has accepted the passcode at some time.
    pub(super) was_accepted: bool,
    /// The operator has been told that the Connector speaks version 1, and not yet that it does not.
    pub(super) said_version: bool,
    pub(super) last_failure: Option<Discriminant<Failure>>,
    pub(super) failures: Throttle,
    pub(super) said: Throttles<Topic>,
}

/// What a log line may be about again and again.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Absence,
    Accept,
    Loss,
    NoLine,
    OtherEnd,
    Refusal,
}

impl Clients {
    /// Listens on the first of `addresses` that can be listened on.
    pub(super) fn listen(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for &address in addresses {
            match tcp::listen(Some(address.ip()), address.port()) {
                Ok(listener) => return Ok(Self { listener: Some(listener), address, waiting: 0, retry: false }),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }
}

impl Service {
    pub(super) fn new(id: ServiceId, plan: Plan, clients: Option<Clients>, now: Instant) -> Self {
        let Plan { settings, tls, .. } = plan;
        Self {
            id,
            pool: Pool::new(settings.connections.into(), now),
            ask_again: now,
            hello_again: (settings.protocol == Protocol::Two).then_some(now),
            knows_frames: false,
            asking: Vec::new(),
            clients,
            usage: Usage::new(now),
            figures: Figures::new(),
            log: Box::default(),
            settings,
            tls,
        }
    }

    /// Clients wait for a connection of those that there are; where more are on their way, they wait for one of these.
    pub(super) fn has_waiting_clients(&self) -> bool {
        let more_come = self.knows_frames && self.pool.authorized() < self.pool.size();
        !more_come && self.clients.as_ref().is_some_and(|clients| clients.waiting > 0)
    }

    /// What log lines about it begin with: nothing if there is only this one, which has no name.
    pub(super) fn label(&self) -> Label<'_> {
        Label(self.settings.name.as_deref())
    }

    pub(super) fn warn(&mut self, topic: Topic, what: impl fmt::Display, now: Instant) {
        if let Some(unsaid) = self.log.said.may_say(topic, now) {
            warn!("{}{what}{}", self.label(), and_more(unsaid));
        }
    }

    /// One line with what it is going to do.
    pub(super) fn summary(&self) -> String {
        let Settings { connector, connections, role, target, security, .. } = &self.settings;
        let role = match role {
            Role::Expose => format!("exposes {target}"),
            Role::Listen => format!("listens on {target} for clients of the other end"),
        };
        let more = if self.hello_again.is_some() { " and more as they are needed" } else { "" };
        let security = if *security == Security::Dev { "dev mode" } else { "TLS" };
        format!("{role} through {connector}, {security}, {}{more}", counted(*connections, "connection"))
    }
}

/// `service "web": `, or nothing.
pub(super) struct Label<'a>(Option<&'a str>);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "Service {name:?}: "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_of_them_take_half_a_megabyte() {
        // The allocator of the packages' binaries has sizes that are powers of two.
        let size = size_of::<Service>();
        assert!(size <= 512, "{size} bytes");
    }
}
