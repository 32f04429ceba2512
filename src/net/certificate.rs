//! Certificate and key files.

use crate::config::Config;
use crate::files;
use crate::limits::CONFIG_FILE;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The files' names, without their ending.
const CERTIFICATE: &str = "server-cert";
pub(super) const KEY: &str = "server-key";

/// Why the daemon has no TLS. Names the file, and what was expected in it.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Neither spelling of the file is there.
    #[error(
        "{}: no such file. Outside dev mode a certificate and its key are needed; `iofog-connector cert` makes them",
        expected.display()
    )]
    Missing { expected: PathBuf },
    #[error("{}: a PEM file was expected: {cause}", file.display())]
    Unreadable { file: PathBuf, cause: pem::Error },
    /// The file has no key in it that can be used.
    #[error(
        "{}: a private key without a password was expected, in PEM format (BEGIN PRIVATE KEY): {cause}",
        file.display()
    )]
    NoKey { file: PathBuf, cause: pem::Error },
    /// The file has no certificate in it.
    #[error("{}: no certificate (BEGIN CERTIFICATE) in it", file.display())]
    Empty { file: PathBuf },
    #[error("{}: this key does not belong to the certificate in {}", key.display(), certificate.display())]
    AnotherKey { certificate: PathBuf, key: PathBuf },
    /// rustls cannot use the two files.
    #[error("{} and {}: {cause}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, cause: rustls::Error },
    /// The file of the key `controllerca` has a certificate in it that cannot be an authority.
    #[error("{}: cannot be used as an authority for client certificates: {cause}", file.display())]
    Authority { file: PathBuf, cause: String },
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
    let found = ["pem", "per"].map(|ending| expected.with_extension(ending)).into_iter().find(|file| file.exists());
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
    let text = files::read(file, CONFIG_FILE).map_err(pem::Error::Io).map_err(unreadable(file))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(unreadable(file))?;
    if Vec::is_empty(&chain) { Err(CertificateError::Empty { file: file.to_owned() }) } else { Ok(chain) }
}

/// The key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub(super) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
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
