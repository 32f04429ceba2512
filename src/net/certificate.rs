//! Certificate and key files, and what TLS is set up to.
//!
//! TLS 1.2 and 1.3 with ring. Where the CPU has no AES instructions (Raspberry Pi 1 to 4), ChaCha20-Poly1305 is
//! preferred: it is several times as fast there. Elsewhere the client's order stands.

use super::authority::Authority;
use super::expiry::Expiry;
use crate::config::Config;
use crate::files;
use crate::limits::CONFIG_FILE;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, SupportedCipherSuite};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files' names, without their ending.
const CERTIFICATE: &str = "server-cert";
const KEY: &str = "server-key";

/// Why the daemon has no TLS. Names the file, and what was expected in it.
#[derive(Debug)]
pub enum CertificateError {
    /// Neither spelling of the file is there.
    Missing {
        expected: PathBuf,
    },
    Unreadable {
        file: PathBuf,
        cause: pem::Error,
    },
    /// The file has no key in it that can be used.
    NoKey {
        file: PathBuf,
        cause: pem::Error,
    },
    /// The file has no certificate in it.
    Empty {
        file: PathBuf,
    },
    /// The two files do not belong together, or rustls cannot use them.
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        cause: rustls::Error,
    },
    /// The file of the key `controllerca` has a certificate in it that cannot be an authority.
    Authority {
        file: PathBuf,
        cause: String,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { expected } => write!(
                f,
                "{}: no such file. Outside dev mode a certificate and its key are needed; `iofog-connector cert` makes them",
                expected.display()
            ),
            Self::Unreadable { file, cause } => {
                write!(f, "{}: a PEM file was expected: {cause}", file.display())
            }
            Self::NoKey { file, cause } => write!(
                f,
                "{}: a private key without a password was expected, in PEM format (BEGIN PRIVATE KEY): {cause}",
                file.display()
            ),
            Self::Empty { file } => write!(f, "{}: no certificate (BEGIN CERTIFICATE) in it", file.display()),
            Self::Unusable { certificate, key, cause } => match cause {
                rustls::Error::InconsistentKeys(_) => write!(
                    f,
                    "{}: this key does not belong to the certificate in {}",
                    key.display(),
                    certificate.display()
                ),
                _ => write!(f, "{} and {}: {cause}", certificate.display(), key.display()),
            },
            Self::Authority { file, cause } => {
                write!(f, "{}: cannot be used as an authority for client certificates: {cause}", file.display())
            }
        }
    }
}

impl std::error::Error for CertificateError {}

/// The folder that has certificate and key: the operator's own stand beside the settings, and come first. Else it is
/// the pair that the machine made for itself, in the state folder.
pub fn folder(config: &Config) -> &Path {
    let theirs = |stem| spelled(config.folder(), stem).is_ok();
    if theirs(CERTIFICATE) || theirs(KEY) || !config.state.join(CERTIFICATE).with_extension("pem").exists() {
        config.folder()
    } else {
        &config.state
    }
}

/// The one of both spellings that exists: `stem.pem`, or `stem.per` as some documentation has it.
fn spelled(folder: &Path, stem: &str) -> Result<PathBuf, CertificateError> {
    let expected = folder.join(stem).with_extension("pem");
    let other = expected.with_extension("per");
    if expected.exists() {
        Ok(expected)
    } else if other.exists() {
        Ok(other)
    } else {
        Err(CertificateError::Missing { expected })
    }
}

/// `server-cert.pem` (a chain, leaf first) of `folder`: the file, and what is in it.
pub fn chain(folder: &Path) -> Result<(PathBuf, Vec<CertificateDer<'static>>), CertificateError> {
    let file = spelled(folder, CERTIFICATE)?;
    let chain = read_chain(&file)?;
    Ok((file, chain))
}

/// `server-key.pem` of `folder`.
pub fn key(folder: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    read_key(&spelled(folder, KEY)?)
}

/// All certificates of a PEM file; at least one.
pub fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = files::read(file, CONFIG_FILE).map_err(pem::Error::Io).map_err(unreadable(file))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(unreadable(file))?;
    if Vec::is_empty(&chain) { Err(CertificateError::Empty { file: file.to_owned() }) } else { Ok(chain) }
}

/// The key of a PEM file: PKCS#8, PKCS#1 or SEC1.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = files::read(file, CONFIG_FILE).map_err(pem::Error::Io).map_err(unreadable(file))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|cause| match cause {
        // Neither of the ways in which a key is encrypted is known to the parser.
        pem::Error::NoItemsFound | pem::Error::Base64Decode(_) => {
            CertificateError::NoKey { file: file.to_owned(), cause }
        }
        _ => unreadable(file)(cause),
    })
}

fn unreadable(file: &Path) -> impl FnOnce(pem::Error) -> CertificateError {
    move |cause| CertificateError::Unreadable { file: file.to_owned(), cause }
}

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
