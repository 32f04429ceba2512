//! The payload of OPEN: what the agent is told of who has come.

use crate::wire::proxy_protocol::Ends;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The families of addresses: none, IPv4, IPv6.
const NONE: u8 = 0;
const IPV4: u8 = 4;
const IPV6: u8 = 6;
/// Flag: the user has come over TLS.
const OVER_TLS: u8 = 1;
/// The optional part with the version of that.
const TLS_VERSION: u8 = 1;
/// The one with the server name that the user has asked for.
const SERVER_NAME: u8 = 2;
/// Those that are known.
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Who a session is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Where the user comes from, and what it has connected to. `None`: it is no user, but the other side of a private
    /// pipe.
    pub ends: Option<Ends>,
    pub over_tls: bool,
    /// Its version, if that is known here.
    pub tls: Option<&'static str>,
    /// The server name that it has asked for.
    pub server_name: Option<Box<str>>,
}

impl Open {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.over_tls { OVER_TLS } else { 0 };
        let mut bytes = Vec::with_capacity(64);
        match self.ends {
            None => bytes.extend([NONE, flags]),
            Some(Ends { from, to }) => match (from.ip().to_canonical(), to.ip().to_canonical()) {
                (IpAddr::V4(user), IpAddr::V4(local)) => {
                    bytes.extend([IPV4, flags]);
                    push(&mut bytes, &user.octets(), from.port());
                    push(&mut bytes, &local.octets(), to.port());
                }
                (user, local) => {
                    bytes.extend([IPV6, flags]);
                    push(&mut bytes, &v6(user).octets(), from.port());
                    push(&mut bytes, &v6(local).octets(), to.port());
                }
            },
        }
        push_part(&mut bytes, TLS_VERSION, self.tls);
        push_part(&mut bytes, SERVER_NAME, self.server_name.as_deref());
        bytes
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[family, flags], rest) = bytes.split_first_chunk()?;
        let (ends, mut rest) = match family {
            NONE => (None, rest),
            IPV4 => {
                let (from, rest) = address(rest, |ip: [u8; 4]| Ipv4Addr::from(ip).into())?;
                let (to, rest) = address(rest, |ip: [u8; 4]| Ipv4Addr::from(ip).into())?;
                (Some(Ends { from, to }), rest)
            }
            IPV6 => {
                let (from, rest) = address(rest, |ip: [u8; 16]| Ipv6Addr::from(ip).into())?;
                let (to, rest) = address(rest, |ip: [u8; 16]| Ipv6Addr::from(ip).into())?;
                (Some(Ends { from, to }), rest)
            }
            _ => return None,
        };
        let (mut tls, mut server_name) = (None, None);
        while let Some((&[kind, length], behind)) = rest.split_first_chunk() {
            let (value, behind) = behind.split_at_checked(length.into())?;
            match kind {
                TLS_VERSION => tls = VERSIONS.into_iter().find(|version| version.as_bytes() == value),
                SERVER_NAME => server_name = name(value).map(Box::from),
                _ => {}
            }
            rest = behind;
        }
        rest.is_empty().then_some(Self { ends, over_tls: flags & OVER_TLS != 0, tls, server_name })
    }
}

/// One that is too long for a part is left out.
fn push_part(bytes: &mut Vec<u8>, kind: u8, value: Option<&str>) {
    if let Some((value, length)) = value.and_then(|value| Some((value, u8::try_from(value.len()).ok()?))) {
        bytes.extend([kind, length]);
        bytes.extend(value.as_bytes());
    }
}

/// Nothing but ASCII that can be seen: it goes to the local service.
fn name(value: &[u8]) -> Option<&str> {
    let is_name = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(value).ok().filter(|_| is_name)
}

fn push(bytes: &mut Vec<u8>, ip: &[u8], port: u16) {
    bytes.extend(ip);
    bytes.extend(port.to_be_bytes());
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn address<const N: usize>(bytes: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<(SocketAddr, &[u8])> {
    let (&octets, rest) = bytes.split_first_chunk()?;
    let (&port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip(octets).to_canonical(), u16::from_be_bytes(port)), rest))
}
