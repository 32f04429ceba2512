//! Connections to the API from addresses that are not in `controllers` (docs/protocol.md, "Who may call").
//!
//! They are known when they are accepted. A few are served far enough to be told so; each costs a handshake, so a
//! crowd of them is closed at once.

use super::{Relay, Topic};
use crate::limits::{API_OUTSIDER_INTERVAL, API_OUTSIDERS};
use crate::network::Network;
use crate::throttle::and_more;
use log::warn;
use std::net::IpAddr;

impl Relay {
    /// Whether one from `ip` is told so. Makes room for it.
    pub(super) fn admit_outsider(&mut self, ip: IpAddr) -> bool {
        let now = self.reactor.now;
        let reason = "its address is not in `controllers`";
        if let Some(unsaid) = self.log.may_say(Topic::Refusal(Network::of(ip), reason), now) {
            warn!("API connection from {ip} refused: {reason}{}", and_more(unsaid));
        }
        let most = API_OUTSIDER_INTERVAL * API_OUTSIDERS as u32;
        if !self.outsider_rate.try_fill(API_OUTSIDER_INTERVAL, most, now) {
            return false;
        }
        if let Some(other) = self.outsiders.surplus(API_OUTSIDERS) {
            self.drop_controller(other);
        }
        true
    }
}
