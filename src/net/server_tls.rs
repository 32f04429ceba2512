//! What TLS is set up to.
//!
//! TLS 1.2 and 1.3 with ring. Where the CPU has no AES instructions (Raspberry Pi 1 to 4), ChaCha20-Poly1305 is
//! preferred: it is several times as fast there. Elsewhere the client's order stands.

use super::authority::Authority;
use super::certificate::{CertificateError, KEY, chain, read_key, spelled};
use super::expiry::Expiry;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};
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
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain.clone(), private.clone_key())?;
        config.ignore_client_order = !fast_aes;
        Ok(Arc::new(config))
    };
    let verifier = match (authority, own) {
        (Some(file), Some(own)) => Some(Authority::read(file, provider.clone())?.or(own)),
        _ => None,
    };
    let unusable = |cause| CertificateError::Unusable { certificate: certificate.clone(), key: key.clone(), cause };
    let (public, api) = (build(None).map_err(unusable)?, build(verifier).map_err(unusable)?);
    Ok(ServerTls { public, api, file: certificate, expiry })
}

/// ring, with ChaCha20-Poly1305 first where AES is slow.
pub fn provider(fast_aes: bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !fast_aes {
        provider.cipher_suites.sort_by_key(|suite| !is_chacha(suite));
    }
    provider
}

fn is_chacha(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// Whether the CPU has AES instructions.
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    // 32-bit ARM and everything else of this class: if there are any, the standard library cannot tell.
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha_comes_first_where_aes_is_slow() {
        let slow = provider(false);
        let chacha = slow.cipher_suites.iter().filter(|suite| is_chacha(suite)).count();
        assert_eq!(chacha, 3);
        assert!(slow.cipher_suites.iter().take(3).all(is_chacha));
        assert!(!is_chacha(&provider(true).cipher_suites[0]));
    }
}
