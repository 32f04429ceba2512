//! Why a connection to the Connector did not come about, in words that say what to do.

use super::target::Target;
use crate::net::link::LinkError;
use crate::net::tls::TlsError;
use rustls::{CertificateError, Error};
use std::io;
use std::net::SocketAddr;

/// One failed attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the name could not be looked up: {0}")]
    Name(io::Error),
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("the proxy {0}: {1}")]
    Proxy(Target, String),
    #[error("{}", handshake(.0))]
    Handshake(LinkError),
    #[error("closed during the TLS handshake; is it in dev mode? Then give --dev")]
    HandshakeCut,
    /// It took the passcode and closed without a word. `dev`: we spoke plain TCP.
    #[error(
        "passcode refused: it was closed without AUTHORIZED. Either the passcode is wrong for this port, or all \
         connections that the mapping allows are in use{}",
        if *dev { ", or TLS is expected (no --dev)" } else { "" }
    )]
    Refused { dev: bool },
    /// The same while others of ours are authorized: it cannot be the passcode.
    #[error(
        "no place for more connections: {authorized} of {wanted} are authorized, and one more is refused. The mapping \
         allows no more, or other agents have its places; give --connections {authorized} here, or more in `mapping add`"
    )]
    NoPlace { authorized: usize, wanted: usize },
    /// The same after ours were authorized.
    #[error(
        "refused, although the passcode was accepted before: other agents have all places of the mapping, or the \
         mapping was removed and its port given to another"
    )]
    RefusedLater,
    #[error("the answer was not AUTHORIZED; is it a Connector, and does it expect TLS (no --dev)?")]
    NotAConnector,
    #[error("the port is one of a public pipe, where nobody listens for clients; --listen needs a private one")]
    Public,
    #[error("the connection broke before it was authorized: {0}")]
    Broken(LinkError),
    /// It let us in, and ended before it had said which version it speaks.
    #[error("it was closed behind AUTHORIZED, before the Connector's hello")]
    NoHello,
    #[error("no answer to the TLS handshake or the passcode in time")]
    TooSlow,
}

impl Failure {
    /// It has reached nobody: this machine is short of descriptors, memory or local ports. It costs nobody anything to try
    /// again soon.
    pub(super) fn is_shortage(&self) -> bool {
        const SHORTAGES: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL];
        match self {
            Self::Name(error) | Self::Connect(_, error) => {
                error.raw_os_error().is_some_and(|it| SHORTAGES.contains(&it))
            }
            _ => false,
        }
    }

    /// What a refusal means to an agent that has so many connections and wants so many. `was_accepted`: its passcode was,
    /// at some time.
    pub(super) fn explained(self, authorized: usize, wanted: usize, was_accepted: bool) -> Self {
        match self {
            Self::Refused { .. } if authorized > 0 => Self::NoPlace { authorized, wanted },
            Self::Refused { .. } if was_accepted => Self::RefusedLater,
            other => other,
        }
    }
}

fn handshake(fault: &LinkError) -> String {
    let LinkError::Tls(TlsError::Tls(Error::InvalidCertificate(reason))) = fault else {
        return format!("TLS handshake: {fault}");
    };
    let reason = match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is neither the configured one nor signed by a configured or known authority"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock of this machine right?"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired, or the clock of this machine is wrong"
        }
        CertificateError::NotValidForNameContext { expected, .. } => &format!(
            "it is not for {}; if it should be for another name, give that (--server-name, or the key \"servername\")",
            expected.to_str()
        ),
        other => &format!("{other:?}"),
    };
    format!("certificate refused: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passcode_that_was_accepted_is_not_blamed() {
        let said = |authorized, was_accepted| {
            Failure::Refused { dev: true }.explained(authorized, 8, was_accepted).to_string()
        };
        assert!(said(0, false).starts_with("passcode refused"));
        assert!(said(0, true).contains("although the passcode was accepted before"));
        assert!(said(3, true).contains("3 of 8 are authorized"));
    }
}
