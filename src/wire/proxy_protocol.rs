//! The PROXY protocol (haproxy.org, `doc/proxy-protocol.txt`), versions 1 and 2: a header in front of the payload that
//! says where a connection came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Which of the two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "v1" => Ok(Self::One),
            "v2" => Ok(Self::Two),
            _ => Err(format!("found {text:?}; expected v1 or v2")),
        }
    }
}

/// The header where nothing is known of the connection.
pub fn unknown(version: Version) -> Vec<u8> {
    match version {
        Version::One => b"PROXY UNKNOWN\r\n".to_vec(),
        // No family, no transport, no addresses.
        Version::Two => [V2, &[LOCAL, 0, 0, 0]].concat(),
    }
}

/// A header of version 1, its CR LF included, is no longer than this.
const LONGEST_V1: usize = 107;
/// The same of version 2 as far as it is read here: addresses, and some TLVs of whoever is in front.
const LONGEST_V2: usize = 1024;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and its commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address families, both with TCP.
const IPV4: u8 = 0x11;
const IPV6: u8 = 0x21;
/// Bytes of a header of version 2 before its addresses.
const FIXED: usize = 16;
/// The TLV with the server name that the client has asked for.
const TLV_AUTHORITY: u8 = 0x02;
/// The TLV that tells of TLS, the part of it that names its version, and "the client connected over TLS".
const TLV_SSL: u8 = 0x20;
const TLV_SSL_VERSION: u8 = 0x21;
const CLIENT_SSL: u8 = 1;

/// What one connection is to be introduced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'n> {
    pub ends: Ends,
    /// The version of TLS that it came over, as `TLSv1.3`.
    pub tls: Option<&'static str>,
    /// The server name that it asked for in its TLS handshake.
    pub server_name: Option<&'n str>,
}

/// Both ends of a connection, as who accepted it saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of so many bytes. `ends`: `None` if it names no addresses (a health check of the proxy itself, say).
    Header { ends: Option<Ends>, length: usize },
    /// No header.
    Invalid,
}

impl Origin<'_> {
    /// The header.
    pub fn header(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => self.v1(),
            Version::Two => self.v2(),
        }
    }

    fn v1(&self) -> Vec<u8> {
        let (family, from, to) = match self.addresses() {
            Addresses::V4(from, to) => ("TCP4", IpAddr::V4(from), IpAddr::V4(to)),
            Addresses::V6(from, to) => ("TCP6", IpAddr::V6(from), IpAddr::V6(to)),
        };
        format!("PROXY {family} {from} {to} {} {}\r\n", self.ends.from.port(), self.ends.to.port()).into_bytes()
    }

    fn v2(&self) -> Vec<u8> {
        let (family, mut body) = match self.addresses() {
            Addresses::V4(from, to) => (IPV4, [from.octets(), to.octets()].concat()),
            Addresses::V6(from, to) => (IPV6, [from.octets(), to.octets()].concat()),
        };
        body.extend(self.ends.from.port().to_be_bytes());
        body.extend(self.ends.to.port().to_be_bytes());
        if let Some(name) = self.server_name {
            push_tlv(&mut body, TLV_AUTHORITY, name.as_bytes());
        }
        if let Some(version) = self.tls {
            // Verified: 0 would say that the client has shown a certificate.
            let mut ssl = [&[CLIENT_SSL][..], &1_u32.to_be_bytes()].concat();
            push_tlv(&mut ssl, TLV_SSL_VERSION, version.as_bytes());
            push_tlv(&mut body, TLV_SSL, &ssl);
        }
        let length = body.len() as u16;
        [V2, &[PROXY, family], &length.to_be_bytes(), &body].concat()
    }

    fn addresses(&self) -> Addresses {
        match (self.ends.from.ip().to_canonical(), self.ends.to.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Addresses::V4(from, to),
            (from, to) => Addresses::V6(as_v6(from), as_v6(to)),
        }
    }
}

enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn push_tlv(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend((value.len() as u16).to_be_bytes());
    to.extend(value);
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
    if begins(V2) {
        parse_v2(bytes).unwrap_or(Parsed::Incomplete)
    } else if begins(V1) {
        parse_v1(bytes)
    } else {
        Parsed::Invalid
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() == LONGEST_V1 { Parsed::Invalid } else { Parsed::Incomplete };
    };
    let line = std::str::from_utf8(&window[..end]).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let ends = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            ends_v1::<Ipv4Addr>([from, to], [from_port, to_port]).map(Some)
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            ends_v1::<Ipv6Addr>([from, to], [from_port, to_port]).map(Some)
        }
        _ => None,
    };
    ends.map_or(Parsed::Invalid, |ends| Parsed::Header { ends, length: end + 2 })
}

fn ends_v1<A: FromStr + Into<IpAddr>>([from, to]: [&str; 2], [from_port, to_port]: [&str; 2]) -> Option<Ends> {
    let end = |ip: &str, port: &str| Some(SocketAddr::new(ip.parse::<A>().ok()?.into(), port.parse().ok()?));
    Some(Ends { from: end(from, from_port)?, to: end(to, to_port)? })
}

/// `None`: more bytes are needed.
fn parse_v2(bytes: &[u8]) -> Option<Parsed> {
    let fixed = bytes.get(..FIXED)?;
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST_V2 || ![LOCAL, PROXY].contains(&fixed[12]) {
        return Some(Parsed::Invalid);
    }
    let body = bytes.get(FIXED..length)?;
    let ends = match (fixed[12], fixed[13]) {
        (PROXY, IPV4) => ends_v2::<4>(body),
        (PROXY, IPV6) => ends_v2::<16>(body),
        // Of other families nothing is known but how long they are.
        _ => return Some(Parsed::Header { ends: None, length }),
    };
    Some(ends.map_or(Parsed::Invalid, |ends| Parsed::Header { ends: Some(ends), length }))
}

/// Addresses of `LENGTH` bytes, and behind them the ports.
fn ends_v2<const LENGTH: usize>(body: &[u8]) -> Option<Ends>
where
    [u8; LENGTH]: Into<IpAddr>,
{
    let (from, rest) = body.split_first_chunk::<LENGTH>()?;
    let (to, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let end = |ip: [u8; LENGTH], port| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(Ends { from: end(*from, [ports[0], ports[1]]), to: end(*to, [ports[2], ports[3]]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(from: &str, to: &str) -> Origin<'static> {
        let ends = Ends { from: from.parse().unwrap(), to: to.parse().unwrap() };
        Origin { ends, tls: None, server_name: None }
    }

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let v4 = origin("192.0.2.1:56324", "198.51.100.2:443");
        assert_eq!(v4.header(Version::One), b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        let v6 = origin("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(v6.header(Version::One), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";
        assert_eq!(v4.header(Version::Two), expected);
        let tls = Origin { tls: Some("TLSv1.3"), ..v4 }.header(Version::Two);
        assert_eq!(&tls[28..], b"\x20\x00\x0f\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3");
        assert_eq!(usize::from(tls[15]), tls.len() - FIXED);
        let named = Origin { server_name: Some("a.example"), ..v4 };
        assert_eq!(named.header(Version::Two)[28..], *b"\x02\x00\x09a.example");
        assert_eq!(named.header(Version::One), v4.header(Version::One));
    }

    #[test]
    fn an_ipv4_address_on_an_ipv6_socket_is_one() {
        let mapped = origin("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
        assert_eq!(mapped.header(Version::One), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        let mixed = origin("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(mixed.header(Version::One), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    }

    #[test]
    fn what_is_written_is_read_in_any_pieces() {
        for (from, to) in [("192.0.2.1:56324", "198.51.100.2:443"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
            for (version, tls) in [(Version::One, None), (Version::Two, None), (Version::Two, Some("TLSv1.2"))] {
                let origin = Origin { tls, ..origin(from, to) };
                let mut bytes = origin.header(version);
                let length = bytes.len();
                assert!((0..length).all(|end| parse(&bytes[..end]) == Parsed::Incomplete), "{version:?}");
                bytes.extend(b"payload");
                assert_eq!(parse(&bytes), Parsed::Header { ends: Some(origin.ends), length });
            }
        }
    }

    #[test]
    fn who_names_no_address_has_none() {
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff:f...f:ffff ffff 1 2\r\n"] {
            assert_eq!(parse(header), Parsed::Header { ends: None, length: header.len() });
        }
        let local = [V2, &[LOCAL, 0, 0, 3, 1, 2, 3]].concat();
        assert_eq!(parse(&local), Parsed::Header { ends: None, length: 19 });
    }

    #[test]
    fn a_header_that_is_too_long_is_invalid() {
        let of = |length: usize| {
            let rest = (length - FIXED) as u16;
            [V2, &[LOCAL, 0], &rest.to_be_bytes(), &vec![0; rest.into()]].concat()
        };
        assert_eq!(parse(&of(LONGEST_V2)), Parsed::Header { ends: None, length: LONGEST_V2 });
        assert_eq!(parse(&of(LONGEST_V2 + 1)), Parsed::Invalid);
    }

    #[test]
    fn anything_else_is_no_header() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let huge = [V2, &[PROXY, IPV4, 0xff, 0xff]].concat();
        let short = [V2, &[PROXY, IPV4, 0, 4, 1, 2, 3, 4]].concat();
        let other = [V2, &[0x11, IPV4, 0, 0]].concat();
        let wrong =
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 1.2.3.4 x 1 2\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXX"];
        for bytes in wrong.into_iter().chain([&long[..], &huge, &short, &other]) {
            assert_eq!(parse(bytes), Parsed::Invalid, "{bytes:?}");
        }
    }
}
