//! Who is behind an API request, in a form that only the event loop can write.
//!
//! tiny_http sees the private socket and not the Controller, so the loop adds a header with the real
//! peer to every request. It carries a random key: whoever else gets hold of the private socket cannot
//! make one up.

use crate::secret::Secret;
use std::net::{IpAddr, SocketAddr};

/// The header's name. The loop passes no header of this name from outside.
pub const HEADER: &str = "X-Connector-Peer";

/// The far end of an API connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// An IPv4 peer of an IPv6 socket has its IPv4 address here.
    pub ip: IpAddr,
    /// Whether it is this very machine.
    pub is_here: bool,
}

impl Peer {
    /// The peer of a connection between these two addresses. Traffic of a machine with itself has the
    /// same address on both ends, whatever the interface; from outside nobody can complete a
    /// connection that claims this.
    pub fn of(peer: SocketAddr, local: SocketAddr) -> Self {
        let (ip, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
        Self { ip, is_here: ip.is_loopback() || ip == local }
    }
}

/// The key of this process.
#[derive(Clone, Debug)]
pub struct Seal(Secret);

impl Seal {
    /// A new one; the loop and the control thread must have the same.
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// The header's value for a request from `peer`.
    pub(crate) fn write(&self, peer: &Peer) -> String {
        let place = if peer.is_here { "here" } else { "away" };
        format!("{} {} {place}", self.0.expose(), peer.ip)
    }

    /// The peer that a header's value tells of; `None` if it was not written with this key.
    pub(crate) fn read(&self, value: &str) -> Option<Peer> {
        let mut words = value.split(' ');
        if !self.0.matches(words.next()?.as_bytes()) {
            return None;
        }
        let ip = words.next()?.parse().ok()?;
        Some(Peer { ip, is_here: words.next()? == "here" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(peer: &str, local: &str) -> Peer {
        Peer::of(peer.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn a_peer_is_here_on_loopback_or_on_an_address_of_ours() {
        assert!(peer("127.0.0.1:5", "127.0.0.1:80").is_here);
        assert!(peer("[::1]:5", "[::1]:80").is_here);
        assert!(peer("[::ffff:127.0.0.5]:5", "[::ffff:127.0.0.1]:80").is_here);
        assert!(peer("192.0.2.1:5", "192.0.2.1:80").is_here);
        assert!(!peer("192.0.2.2:5", "192.0.2.1:80").is_here);
        assert_eq!(peer("[::ffff:192.0.2.2]:5", "[::ffff:192.0.2.1]:80").ip, IpAddr::from([192, 0, 2, 2]));
    }

    #[test]
    fn only_the_right_key_is_believed() {
        let (seal, other) = (Seal::random(), Seal::random());
        for peer in [peer("192.0.2.2:5", "192.0.2.1:80"), peer("[::1]:5", "[::1]:80")] {
            assert_eq!(seal.read(&seal.write(&peer)), Some(peer));
            assert_eq!(seal.read(&other.write(&peer)), None);
        }
        for forged in ["", " ", " 127.0.0.1 here", "x 127.0.0.1 here"] {
            assert_eq!(seal.read(forged), None);
        }
    }
}
