//! Why a connection to the Connector did not come about, in words that say what to do.

use crate::net::link::Fault;
use crate::net::tls::Broken;
use rustls::{CertificateError, Error};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// One failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// The name could not be looked up.
    Name(io::Error),
    Connect(SocketAddr, io::Error),
    Handshake(Fault),
    /// Closed in the middle of the TLS handshake.
    HandshakeCut,
    /// It took the passcode and closed without a word. `dev`: we spoke plain TCP.
    Refused {
        dev: bool,
    },
    /// It answered the passcode with something else.
    NotAConnector,
    /// The connection broke before it was authorized.
    Broken(Fault),
    /// Handshake and passcode took too long.
    TooSlow,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(e) => write!(f, "the name could not be looked up: {e}"),
            Self::Connect(address, e) => write!(f, "{address} cannot be reached: {e}"),
            Self::Handshake(fault) => handshake(f, fault),
            Self::HandshakeCut => f.write_str("closed during the TLS handshake; is it in dev mode? Then give --dev"),
            Self::Refused { dev } => {
                f.write_str(
                    "passcode refused: it was closed without AUTHORIZED. Either the passcode is wrong for this port, \
                     or all connections that the mapping allows are in use",
                )?;
                if *dev { f.write_str(", or TLS is expected (no --dev)") } else { Ok(()) }
            }
            Self::NotAConnector => f.write_str(
                "something else than AUTHORIZED came; is it a Connector, and does it expect TLS (no --dev)?",
            ),
            Self::Broken(fault) => write!(f, "the connection broke before it was authorized: {fault}"),
            Self::TooSlow => f.write_str("no answer to the TLS handshake or the passcode in time"),
        }
    }
}

fn handshake(f: &mut fmt::Formatter<'_>, fault: &Fault) -> fmt::Result {
    let Fault::Tls(broken) = fault else { return write!(f, "TLS handshake: {fault}") };
    let Broken::Tls(Error::InvalidCertificate(reason)) = broken else {
        return write!(f, "TLS handshake: {broken}");
    };
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => f.write_str(
            "certificate refused: it is neither the configured one nor signed by a configured or known authority",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            f.write_str("certificate refused: it is not valid yet; is the clock of this machine right?")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            f.write_str("certificate refused: it has expired, or the clock of this machine is wrong")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            f.write_str("certificate refused: it is for another name than the one that was dialled")
        }
        other => write!(f, "certificate refused: {other:?}"),
    }
}
