//! The cryptography of all TLS here: ring.
//!
//! Where the CPU has no AES instructions (Raspberry Pi 1 to 4), ChaCha20-Poly1305 is preferred: it is several times as
//! fast there. Elsewhere the client's order stands.

use crate::clock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

/// The half of a certificate verifier that never differs: the peer has the certificate's key. For a type with a field
/// `provider`.
macro_rules! signatures_by_provider {
    ($($verify:ident),*) => {
        $(fn $verify(
            &self,
            message: &[u8],
            leaf: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::$verify(message, leaf, signature, &self.provider.signature_verification_algorithms)
        })*

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(super) use signatures_by_provider;

/// What rustls compares the dates of certificates with.
#[derive(Debug)]
pub struct TimeOfDay;

impl TimeProvider for TimeOfDay {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(clock::since_1970()))
    }
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
