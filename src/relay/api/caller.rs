//! Who is behind an API request.
//!
//! tiny_http sees the private socket and not the Controller, so the loop adds a header with the real caller to every
//! request, and passes on no header from outside but those that the API reads.

use std::net::{IpAddr, SocketAddr};

/// The header's name.
pub const HEADER: &str = "X-Connector-Peer";

/// The far end of an API connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiCaller {
    /// An IPv4 peer of an IPv6 socket has its IPv4 address here.
    pub ip: IpAddr,
    /// Whether it is this very machine.
    pub is_here: bool,
    /// It came to the port of `metricslisten`: it may read, and nothing else.
    pub only_reads: bool,
}

impl ApiCaller {
    /// The caller of a connection between these two addresses. Traffic of a machine with itself has the
    /// same address on both ends, whatever the interface; from outside nobody can complete a
    /// connection that claims this.
    pub fn of(peer: SocketAddr, local: SocketAddr) -> Self {
        let (ip, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
        Self { ip, is_here: ip.is_loopback() || ip == local, only_reads: false }
    }

    /// The header's value for a request.
    pub(crate) fn write(&self) -> String {
        let place = match self {
            Self { only_reads: true, .. } => "reads",
            Self { is_here: true, .. } => "here",
            _ => "away",
        };
        format!("{} {place}", self.ip)
    }

    /// What [`ApiCaller::write`] wrote.
    pub(crate) fn read(value: &str) -> Option<Self> {
        let (ip, place) = value.split_once(' ')?;
        Some(Self { ip: ip.parse().ok()?, is_here: place == "here", only_reads: place == "reads" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(peer: &str, local: &str) -> ApiCaller {
        ApiCaller::of(peer.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn a_caller_is_here_on_loopback_or_on_an_address_of_ours() {
        assert!(caller("127.0.0.1:5", "127.0.0.1:80").is_here);
        assert!(caller("[::1]:5", "[::1]:80").is_here);
        assert!(caller("[::ffff:127.0.0.5]:5", "[::ffff:127.0.0.1]:80").is_here);
        assert!(caller("192.0.2.1:5", "192.0.2.1:80").is_here);
        assert!(!caller("192.0.2.2:5", "192.0.2.1:80").is_here);
        assert_eq!(caller("[::ffff:192.0.2.2]:5", "[::ffff:192.0.2.1]:80").ip, IpAddr::from([192, 0, 2, 2]));
    }

    #[test]
    fn what_is_written_is_read() {
        let [away, here] = [caller("192.0.2.2:5", "192.0.2.1:80"), caller("[::1]:5", "[::1]:80")];
        for caller in [away, here, ApiCaller { only_reads: true, ..away }] {
            assert_eq!(ApiCaller::read(&caller.write()), Some(caller));
        }
    }
}
