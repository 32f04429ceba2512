//! Client certificates: whom the API port takes for a Controller (key `controllerca`).
//!
//! A Controller shows a certificate that the configured authority has signed. The daemon's own certificate is taken as
//! well: who has its key may do with the daemon whatever it likes, and so the command line, which runs beside the
//! key, needs no certificate of its own.

use super::certificate::{CertificateError, read_chain};
use super::link::Fault;
use super::tls::Broken;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// Certificates that must have signed a Controller's.
#[derive(Debug)]
pub struct Authority(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// Those in the PEM file `file`; at least one.
    pub fn read(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, CertificateError> {
        let unusable = |cause: String| CertificateError::Authority { file: file.to_owned(), cause };
        let mut roots = RootCertStore::empty();
        for certificate in read_chain(file)? {
            roots.add(certificate).map_err(|cause| unusable(cause.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map(Self).map_err(|cause| unusable(cause.to_string()))
    }

    /// What a TLS server asks of its clients, whose own certificate is `own`.
    pub(super) fn or(self, own: CertificateDer<'static>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Demand { signed: self.0, own })
    }
}

/// A certificate that is signed, or the server's own.
#[derive(Debug)]
struct Demand {
    signed: Arc<dyn ClientCertVerifier>,
    own: CertificateDer<'static>,
}

impl ClientCertVerifier for Demand {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.own == *leaf {
            // That the client has the key, too, is checked by the signature, as ever.
            return Ok(ClientCertVerified::assertion());
        }
        self.signed.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Why a client was refused for its certificate; `None` if `fault` is another.
pub fn refusal(fault: &Fault) -> Option<(&'static str, String)> {
    match fault {
        Fault::Tls(Broken::Tls(Error::NoCertificatesPresented)) => {
            Some(("it has no client certificate", String::new()))
        }
        Fault::Tls(Broken::Tls(Error::InvalidCertificate(cause))) => {
            Some(("its client certificate is not taken", format!(": {cause}")))
        }
        _ => None,
    }
}
