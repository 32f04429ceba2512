//! Certificate and key files.

use crate::config::Config;
use crate::files;
use crate::layout::{CERTIFICATE, ENDINGS, KEY};
use crate::limits::CONFIG_FILE;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the daemon has no TLS. Names the file, and what was expected in it.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Neither spelling of the file is there.
    #[error(
        "{}: no such file. Outside dev mode a certificate and its key are needed; `iofog-connector cert` makes them",
        expected.display()
    )]
    Missing { expected: PathBuf },
    #[error("{}: cannot be read: {cause}", file.display())]
    Unreadable { file: PathBuf, cause: io::Error },
    #[error("{}: not a valid PEM file: {}", file.display(), fault(cause))]
    NoPem { file: PathBuf, cause: pem::Error },
    /// The key needs a password, which a daemon has not.
    #[error(
        "{0}: the private key is encrypted; the daemon needs one without a password. To make one: \
         openssl pkey -in {0} -out KEY.pem",
        file.display()
    )]
    Encrypted { file: PathBuf },
    /// The file has no key in it.
    #[error("{}: no private key (BEGIN PRIVATE KEY) in it{hint}", file.display())]
    NoKey { file: PathBuf, hint: &'static str },
    /// The file has no certificate in it.
    #[error("{}: no certificate (BEGIN CERTIFICATE) in it{hint}", file.display())]
    Empty { file: PathBuf, hint: &'static str },
    #[error("{}: this key does not belong to the certificate in {}", key.display(), certificate.display())]
    AnotherKey { certificate: PathBuf, key: PathBuf },
    #[error("{}: the certificate cannot be read: it is damaged, or of a kind that is not supported", certificate.display())]
    Damaged { certificate: PathBuf },
    #[error(
        "{}: a key of a kind that is not supported; expected RSA with 2048 to 8192 bits, ECDSA on P-256 or P-384, or \
         Ed25519",
        key.display()
    )]
    UnknownKey { key: PathBuf },
    /// rustls cannot use the two files.
    #[error("{} and {}: {cause}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, cause: rustls::Error },
    /// The file of the key `controllerca` has a certificate in it that cannot be an authority.
    #[error("{}: cannot be used as an authority for client certificates: a certificate in it is damaged", file.display())]
    Authority { file: PathBuf },
}

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
pub(super) fn spelled(folder: &Path, stem: &str) -> Result<PathBuf, CertificateError> {
    let expected = folder.join(stem).with_extension("pem");
    let found = ENDINGS.map(|ending| expected.with_extension(ending)).into_iter().find(|file| file.exists());
    found.ok_or(CertificateError::Missing { expected })
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
    let text = read(file)?;
    let no_pem = |cause| CertificateError::NoPem { file: file.to_owned(), cause };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(no_pem)?;
    match chain.is_empty() {
        true => Err(CertificateError::Empty { file: file.to_owned(), hint: hint(&text) }),
        false => Ok(chain),
    }
}

/// The key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub(super) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = read(file)?;
    let file = file.to_owned();
    PrivateKeyDer::from_pem_slice(&text).map_err(|cause| match cause {
        // Neither of the ways in which a key is encrypted is known to the parser.
        _ if has(&text, "ENCRYPTED") => CertificateError::Encrypted { file },
        pem::Error::NoItemsFound => CertificateError::NoKey { file, hint: hint(&text) },
        cause => CertificateError::NoPem { file, cause },
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |cause| CertificateError::Unreadable { file: file.to_owned(), cause };
    files::read(file, CONFIG_FILE).map_err(unreadable)
}

/// What is in a file instead of what was expected, where that is a common slip.
fn hint(text: &[u8]) -> &'static str {
    match text {
        [] => "; it is empty",
        // A DER sequence that is longer than 127 bytes.
        [0x30, 0x81..=0x83, ..] => "; it is in DER format: convert it with openssl, -inform DER",
        text if has(text, "PRIVATE KEY-----") => "; there is a private key: are the two files mixed up?",
        text if has(text, "BEGIN CERTIFICATE-----") => "; there is a certificate: are the two files mixed up?",
        text if has(text, "BEGIN CERTIFICATE REQUEST-----") => "; there is a request for a certificate",
        _ => "",
    }
}

fn has(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|window| window == words.as_bytes())
}

/// The PEM parser's findings in our words.
fn fault(cause: &pem::Error) -> String {
    match cause {
        pem::Error::MissingSectionEnd { .. } => "the END line that belongs to a BEGIN line is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is damaged".to_owned(),
        pem::Error::Base64Decode(_) => "between BEGIN and END there is something else than base64".to_owned(),
        pem::Error::NoItemsFound => "there is nothing of use in it".to_owned(),
        pem::Error::Io(cause) => cause.to_string(),
        _ => "it is damaged".to_owned(),
    }
}
