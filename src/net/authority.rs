//! Client certificates: whom the API port takes for a Controller (key `controllerca`).
//!
//! A Controller shows a certificate that the configured authority has signed. The daemon's own certificate is taken as
//! well: who has its key may do with the daemon whatever it likes, and so the command line, which runs beside the
//! key, needs no certificate of its own.

use super::certificate::{CertificateError, read_chain};
use super::link::LinkError;
use super::provider::signatures_by_provider;
use super::tls::TlsError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Certificates that must have signed a Controller's.
#[derive(Debug)]
pub struct Authority {
    signed: Arc<dyn ClientCertVerifier>,
    /// The server's own certificate.
    own: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// Those in the PEM file `file`; at least one.
    pub fn read(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, CertificateError> {
        let unusable = || CertificateError::Authority { file: file.to_owned() };
        let mut roots = RootCertStore::empty();
        for certificate in read_chain(file)? {
            roots.add(certificate).map_err(|_| unusable())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Ok(Self { signed: verifier.map_err(|_| unusable())?, own: None, provider })
    }

    /// What a TLS server asks of its clients, whose own certificate is `own`.
    pub(super) fn or(self, own: CertificateDer<'static>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Self { own: Some(own), ..self })
    }
}

impl ClientCertVerifier for Authority {
    signatures_by_provider!(verify_tls12_signature, verify_tls13_signature);

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.own.as_ref() == Some(leaf) {
            // That the client has the key, too, is checked by the signature, as ever.
            return Ok(ClientCertVerified::assertion());
        }
        self.signed.verify_client_cert(leaf, intermediates, now)
    }
}

/// Why a client was refused for its certificate; `None` if `fault` is another.
pub fn refusal(fault: &LinkError) -> Option<(&'static str, String)> {
    match fault {
        LinkError::Tls(TlsError::Tls(Error::NoCertificatesPresented)) => {
            Some(("it has no client certificate", String::new()))
        }
        LinkError::Tls(TlsError::Tls(Error::InvalidCertificate(cause))) => {
            Some(("its client certificate is not taken", format!(": {cause}")))
        }
        _ => None,
    }
}
