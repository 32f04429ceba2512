//! The cryptography of all TLS here: ring.
//!
//! Where the CPU has no AES instructions (Raspberry Pi 1 to 4), ChaCha20-Poly1305 is preferred: it is several times as
//! fast there. Elsewhere a client prefers AES with 128 bits and SHA-256, for which such CPUs have instructions too; its
//! order stands.

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

/// ring, with what this CPU is fast at first.
pub fn provider(fast_aes: bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let is_preferred = if fast_aes { is_aes_128 } else { is_chacha };
    provider.cipher_suites.sort_by_key(|suite| !is_preferred(suite));
    provider
}

fn is_aes_128(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
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
    fn what_the_cpu_is_fast_at_comes_first() {
        for (fast_aes, is_preferred) in [(false, is_chacha as fn(&SupportedCipherSuite) -> bool), (true, is_aes_128)] {
            let suites = provider(fast_aes).cipher_suites;
            assert_eq!(suites.iter().filter(|suite| is_preferred(suite)).count(), 3);
            assert!(suites.iter().take(3).all(is_preferred));
            assert_eq!(suites.len(), 9);
        }
    }
}
