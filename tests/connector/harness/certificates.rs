//! Certificates for daemons under test, and clients that take exactly those.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use std::sync::{Arc, OnceLock};

/// What stands in server-cert.pem and server-key.pem.
#[derive(Clone)]
pub struct Certificate {
    /// Leaf first.
    pub chain: String,
    pub key: String,
}

/// The self-signed certificate that all daemons share unless a test is about certificates.
pub fn test_certificate() -> &'static Certificate {
    static SHARED: OnceLock<Certificate> = OnceLock::new();
    SHARED.get_or_init(|| {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters("connector under test").self_signed(&key).expect("a certificate");
        Certificate { chain: certificate.pem(), key: key.serialize_pem() }
    })
}

/// A leaf that an intermediate signed, both in one file.
pub fn chain_of_two() -> Certificate {
    Authority::new().leaf()
}

/// Signs certificates for `localhost`.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut authority = parameters("test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(authority, key).expect("an authority"))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn leaf(&self) -> Certificate {
        self.sign(parameters("leaf"))
    }

    pub fn leaf_of_the_future(&self) -> Certificate {
        let mut leaf = parameters("leaf");
        leaf.not_before = date_time_ymd(2999, 1, 1);
        leaf.not_after = date_time_ymd(3000, 1, 1);
        self.sign(leaf)
    }

    fn sign(&self, leaf: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let leaf = leaf.signed_by(&key, &self.0).expect("a leaf");
        Certificate { chain: leaf.pem() + &self.pem(), key: key.serialize_pem() }
    }
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a DNS name");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

impl Certificate {
    /// A client that takes this chain, byte for byte, and nothing else: as agents in the field do.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        Arc::new(self.trusting(versions).with_no_client_auth())
    }

    /// The same, with a certificate of its own.
    pub fn client_with(&self, own: &Certificate, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM");
        Arc::new(self.trusting(versions).with_client_auth_cert(own.certificates(), key).expect("a key that fits"))
    }

    /// A server that has it.
    pub fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions that the provider has");
        Arc::new(config.with_no_client_auth().with_single_cert(self.certificates(), key).expect("a key that fits"))
    }

    fn trusting(&self, versions: &[&'static SupportedProtocolVersion]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let provider = Arc::new(ring::default_provider());
        ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { chain: self.certificates(), provider }))
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(|c| c.expect("PEM")).collect()
    }
}

#[derive(Debug)]
struct Pinned {
    chain: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.chain[0] == *leaf && self.chain[1..] == *rest {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("not the certificate of the test".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
