//! Whether the other end of a dialled TLS connection is the Connector.
//!
//! Three ways to know it, as an operator would configure them:
//!
//! | known | accepted |
//! |---|---|
//! | the Connector's own certificate | exactly that one, byte for byte, whatever its names and dates |
//! | an authority's certificate | a chain that ends there, and a leaf that is valid now for the name that was dialled |
//! | nothing | the same with the authorities that the system trusts |
//!
//! Whichever it is, the peer proves in the handshake that it has the certificate's key.

use super::server_tls::{has_aes, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which Connector is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The one that has this certificate.
    Only(CertificateDer<'static>),
    /// One that has one of these certificates, or a certificate that one of these has signed.
    Certificates(Vec<CertificateDer<'static>>),
    /// One whose certificate the system's authorities vouch for.
    System,
}

/// What a client shows of itself when it is asked: chain, leaf first, and key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Why nobody can be trusted.
#[derive(Debug)]
pub enum TrustError {
    /// The system has no list of authorities, or an empty one.
    NoAuthorities { looked_in: Option<PathBuf> },
    /// rustls cannot be set up, or the identity's certificate and key do not belong together.
    Tls(Error),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = "--ca FILE (or the key \"cert\") names the Connector's certificate, SSL_CERT_FILE another list";
        match self {
            Self::NoAuthorities { looked_in: None } => {
                write!(f, "this system has no list of certificate authorities; {hint}")
            }
            Self::NoAuthorities { looked_in: Some(file) } => {
                write!(f, "{}: no usable certificate authority in it; {hint}", file.display())
            }
            Self::Tls(e) => write!(f, "TLS cannot be set up: {e}"),
        }
    }
}

impl std::error::Error for TrustError {}

/// What a dialled TLS connection is set up with.
pub fn client_config(trust: &Trust, identity: Option<Identity>) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(provider(has_aes()));
    let verifier = match trust {
        Trust::Only(certificate) => Verifier::new(vec![certificate.clone()], RootCertStore::empty(), &provider)?,
        Trust::Certificates(configured) => Verifier::new(configured.clone(), roots(configured.iter()), &provider)?,
        Trust::System => Verifier::new(Vec::new(), system_roots()?, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TrustError::Tls)?,
    };
    Ok(Arc::new(config))
}

/// Whether a handshake failed because the peer has a certificate that nothing vouches for.
pub fn is_unknown_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// Those of `certificates` that can vouch for others.
fn roots<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.cloned());
    roots
}

/// The authorities that this system trusts. SSL_CERT_FILE is honoured.
fn system_roots() -> Result<RootCertStore, TrustError> {
    let looked_in = openssl_probe::probe().cert_file;
    let certificates = looked_in.as_deref().map(read_list).unwrap_or_default();
    let roots = roots(certificates.iter());
    if roots.is_empty() { Err(TrustError::NoAuthorities { looked_in }) } else { Ok(roots) }
}

/// The certificates of a list; what is no certificate in it is left out.
fn read_list(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).map(|list| list.flatten().collect()).unwrap_or_default()
}

/// Accepts one of the configured certificates itself, or what the authorities vouch for.
#[derive(Debug)]
struct Verifier {
    configured: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        configured: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TrustError> {
        let provider = Arc::clone(provider);
        let authorities = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(builder.build().map_err(|e| TrustError::Tls(Error::General(e.to_string())))?)
        };
        Ok(Self { configured, authorities, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.configured.contains(leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_server_cert(leaf, rest, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    fn parameters(name: &str) -> CertificateParams {
        CertificateParams::new([name.to_owned()]).unwrap()
    }

    fn self_signed(parameters: CertificateParams) -> CertificateDer<'static> {
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(configured: &[CertificateDer<'static>], leaf: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let provider = Arc::new(provider(true));
        let verifier = Verifier::new(configured.to_vec(), roots(configured.iter()), &provider).unwrap();
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn the_configured_certificate_is_taken_whatever_its_name_and_dates() {
        let mut old = parameters("a.example");
        (old.not_before, old.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let ours = self_signed(old);
        let other = self_signed(parameters("a.example"));
        verify(std::slice::from_ref(&ours), &ours, "b.example").unwrap();
        let error = verify(&[ours], &other, "a.example").unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
    }

    #[test]
    fn what_an_authority_signed_must_have_the_name_and_be_valid() {
        let mut authority = parameters("authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let configured = [authority.der().clone()];
        let sign = |parameters: CertificateParams| {
            parameters.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap().der().clone()
        };
        verify(&configured, &sign(parameters("a.example")), "a.example").unwrap();
        let wrong_name = verify(&configured, &sign(parameters("a.example")), "b.example").unwrap_err();
        assert!(format!("{wrong_name:?}").contains("NotValidForName"), "{wrong_name:?}");
        let mut future = parameters("a.example");
        (future.not_before, future.not_after) = (date_time_ymd(2999, 1, 1), date_time_ymd(3000, 1, 1));
        let too_early = verify(&configured, &sign(future), "a.example").unwrap_err();
        assert!(format!("{too_early:?}").contains("NotValidYet"), "{too_early:?}");
    }

    #[test]
    fn garbage_is_no_authority() {
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        assert!(verify(&[garbage], &self_signed(parameters("a.example")), "a.example").is_err());
    }
}
