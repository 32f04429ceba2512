//! An address or a range of addresses, as the key `controllers` lists them: `10.0.0.0/8`, `::1`.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that share the first bits of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether `address` is in the range. An IPv4 address that came over an IPv6 socket
    /// (`::ffff:10.0.0.1`) counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// Whether `address` may call the API, if only those in `controllers` may.
pub fn may_call(controllers: Option<&[Cidr]>, address: IpAddr) -> bool {
    controllers.is_none_or(|ranges| ranges.iter().any(|range| range.contains(address)))
}

impl FromStr for Cidr {
    type Err = String;

    /// Takes an address or `address/prefix`; bits beyond the prefix must be zero, because
    /// `10.1.2.3/8` is more likely a slip than a wish to let in sixteen million hosts.
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is no IP address or range"))?;
        if address.to_canonical() != address {
            return Err(format!("{text:?} is an IPv4 address in IPv6 clothes; write {}", address.to_canonical()));
        }
        let host = IpNet::from(address);
        if !text.contains('/') {
            return Ok(Self(host));
        }
        let longest = host.max_prefix_len();
        let no_prefix = |_| format!("{text:?} has no valid prefix length, 0 to {longest}");
        let range: IpNet = text.parse().map_err(no_prefix)?;
        if range.trunc() != range {
            return Err(format!("{text:?} has bits set beyond its prefix; write {}", range.trunc()));
        }
        Ok(Self(range))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        range.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_what_shares_its_prefix() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::/0", "::1"));
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_address() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!contains("::/0", "::ffff:10.1.2.3"));
    }

    #[test]
    fn slips_are_refused_with_what_was_wrong() {
        for (text, complaint) in [
            ("", "no IP address"),
            ("localhost", "no IP address"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.1.2.3/8", "write 10.0.0.0/8"),
            ("::ffff:10.0.0.1", "write 10.0.0.1"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
