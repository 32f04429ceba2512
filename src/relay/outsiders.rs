//! Connections to the API from addresses that are not in `controllers` (docs/protocol.md, "Who may call").
//!
//! They are known when they are accepted. A few are served far enough to be told so; each costs a handshake, so a
//! crowd of them is closed at once.

use super::Relay;
use crate::limits::{API_OUTSIDER_INTERVAL, API_OUTSIDERS};
use crate::throttle::and_more;
use log::warn;
use std::net::IpAddr;

impl Relay {
    /// Whether one from `ip` is told so. Makes room for it.
    pub(super) fn admit_outsider(&mut self, ip: IpAddr) -> bool {
        let now = self.reactor.now;
        if let Some(unsaid) = self.listeners.refused.may_say(ip, now) {
            warn!("API connection from {ip} refused: its address is not in `controllers`{}", and_more(unsaid));
        }
        let most = API_OUTSIDER_INTERVAL * API_OUTSIDERS as u32;
        if self.outsider_rate.level(now) + API_OUTSIDER_INTERVAL > most {
            return false;
        }
        self.outsider_rate.fill(API_OUTSIDER_INTERVAL, most, now);
        if let Some(other) = self.outsiders.surplus(API_OUTSIDERS) {
            self.drop_controller(other);
        }
        true
    }
}
