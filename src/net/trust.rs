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

use super::provider::{TimeOfDay, has_aes, provider, signatures_by_provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;

/// Which Connector is believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// What is to be done where no authority is known.
const HINT: &str = "--ca FILE (or the key \"cert\") names the Connector's certificate, SSL_CERT_FILE another list";

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("this system has no list of certificate authorities; {HINT}")]
    NoList,
    #[error("{}: no usable certificate authority in it; {HINT}", .0.display())]
    NoAuthorities(PathBuf),
    /// rustls cannot be set up, or the identity's certificate and key do not belong together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] Error),
}

/// What a dialled TLS connection is set up with.
pub fn client_config(trust: &Trust, identity: Option<Identity>) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(provider(has_aes()));
    let (configured, roots) = match trust {
        Trust::Only(certificate) => (vec![certificate.clone()], RootCertStore::empty()),
        Trust::Certificates(configured) => (configured.clone(), roots(configured)),
        Trust::System => (Vec::new(), system_roots()?),
    };
    let verifier = Verifier::new(configured, roots, &provider)?;
    let builder = ClientConfig::builder_with_details(provider, Arc::new(TimeOfDay))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
    }))
}

/// Whether a handshake failed because the peer has a certificate that nothing vouches for.
pub fn is_unknown_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// Those of `certificates` that can vouch for others.
fn roots(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    roots
}

/// The authorities that this system trusts. SSL_CERT_FILE is honoured. What is no certificate in the list is left out.
fn system_roots() -> Result<RootCertStore, TrustError> {
    let list = openssl_probe::probe().cert_file.ok_or(TrustError::NoList)?;
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&list).into_iter().flatten().flatten().collect();
    let roots = roots(&certificates);
    if roots.is_empty() { Err(TrustError::NoAuthorities(list)) } else { Ok(roots) }
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
    ) -> Result<Self, Error> {
        let build = |roots| WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        let authorities = (!roots.is_empty()).then(|| build(Arc::new(roots))).transpose();
        let authorities = authorities.map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { configured, authorities, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for Verifier {
    signatures_by_provider!(verify_tls12_signature, verify_tls13_signature);

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
        let verifier = Verifier::new(configured.to_vec(), roots(configured), &provider).unwrap();
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
