//! `HOST:PORT`, as people write it: a name, an IPv4 address, or an IPv6 address in brackets.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// What an agent connects to or listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

/// What [`Target::from_str`] expects.
pub const EXPECTED: &str = "HOST:PORT, like example.org:6000, 192.0.2.1:6000 or [2001:db8::1]:6000";

impl Target {
    /// No name has to be looked up for it.
    pub fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// Looks the name up. This may take many seconds.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no target; expected {EXPECTED}");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(inside) => inside.strip_suffix(']').filter(|ip| ip.contains(':')).ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_kinds_of_address_are_understood() {
        for (text, host) in [("a.example:1", "a.example"), ("192.0.2.1:65535", "192.0.2.1"), ("[::1]:80", "::1")] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.host, host);
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn what_is_none_says_what_was_expected() {
        for text in ["", "host", "host:", ":80", "host:0", "host:65536", "::1:80", "[::1]", "[]:80", "[host]:80"] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn only_addresses_need_no_lookup() {
        let is_address = |text: &str| text.parse::<Target>().unwrap().is_address();
        assert!(is_address("[::1]:80") && is_address("192.0.2.1:80"));
        assert!(!is_address("localhost:80"));
    }
}
