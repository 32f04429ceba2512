//! What TLS is set up to at the daemon's ports: TLS 1.2 and 1.3.

use super::authority::Authority;
use super::certificate::{CertificateError, chain, read_key, spelled};
use super::expiry::Expiry;
use super::provider::{TimeOfDay, has_aes, provider};
use super::server_name::OneCertificate;
use crate::layout::KEY;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the daemon's ports are set up to.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For agents and users.
    pub public: Arc<ServerConfig>,
    /// For Controllers.
    pub api: Arc<ServerConfig>,
    /// Where the certificate stood.
    pub file: PathBuf,
    /// Until when it is valid, if that can be read.
    pub expiry: Option<Expiry>,
}

/// `server-cert.pem` and `server-key.pem` of `folder`, ready for use. Controllers need a certificate of `authority`,
/// a PEM file, if there is one.
pub fn server_tls(folder: &Path, authority: Option<&Path>) -> Result<ServerTls, CertificateError> {
    let (certificate, chain) = chain(folder)?;
    let key = spelled(folder, KEY)?;
    let private = read_key(&key)?;
    let (fast_aes, own) = (has_aes(), chain.first().cloned());
    let expiry = own.as_ref().and_then(Expiry::of);
    let provider = Arc::new(provider(fast_aes));
    // Each with sessions of its own: one that began at a public port must not be resumed at the API's.
    let build = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(TimeOfDay))
            .with_safe_default_protocol_versions()?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let pair = CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider)?;
        let mut config = builder.with_cert_resolver(Arc::new(OneCertificate(Arc::new(pair))));
        config.ignore_client_order = !fast_aes;
        Ok(Arc::new(config))
    };
    let verifier = match (authority, own) {
        (Some(file), Some(own)) => Some(Authority::read(file, provider.clone())?.or(own)),
        _ => None,
    };
    let unusable = |cause| match (certificate.clone(), key.clone()) {
        (certificate, key) if matches!(cause, rustls::Error::InconsistentKeys(_)) => {
            CertificateError::AnotherKey { certificate, key }
        }
        (certificate, _) if matches!(cause, rustls::Error::InvalidCertificate(_)) => {
            CertificateError::Damaged { certificate }
        }
        // The provider has tried all kinds that it knows.
        (_, key) if matches!(cause, rustls::Error::General(_)) => CertificateError::UnknownKey { key },
        (certificate, key) => CertificateError::Unusable { certificate, key, cause },
    };
    let (public, api) = (build(None).map_err(unusable)?, build(verifier).map_err(unusable)?);
    Ok(ServerTls { public, api, file: certificate, expiry })
}
