//! Both ends of a TLS connection, for the two targets that need them: ours, and a rustls peer that sends what it is
//! told to, as records of any content type.

use crate::limits::{HANDSHAKE_BYTES, HANDSHAKE_CHAIN, HANDSHAKE_PIECES};
use crate::net::tls::{MAX_SEALED, Tls, TlsError, record_len};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion, Tls12CipherSuite,
    Tls13CipherSuite, version,
};
use std::cell::Cell;
use std::io::Write;
use std::sync::{Arc, LazyLock};

/// What a connection is like, by the bits of one byte.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) we_serve: bool,
    pub(super) tls12: bool,
    client_certificate: bool,
}

impl Shape {
    pub(super) fn of(byte: u8) -> Self {
        Self { we_serve: byte & 1 == 0, tls12: byte & 2 != 0, client_certificate: byte & 4 != 0 }
    }

    fn version(self) -> &'static [&'static SupportedProtocolVersion] {
        const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
        const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
        if self.tls12 { TLS12 } else { TLS13 }
    }
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    Identity { chain: vec![cert.der().clone()], key: key(&signing_key), roots: Arc::new(roots) }
});

fn key(pair: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(pair.serialize_der()).expect("a key")
}

/// Configurations by the byte of their [`Shape`], first ours, then the peer's.
static CONFIGS: LazyLock<Vec<[Configs; 2]>> = LazyLock::new(|| {
    let (ours, wild) = (Arc::new(ring::default_provider()), Arc::new(wild_provider()));
    (0..8).map(|byte| [&ours, &wild].map(|provider| Configs::new(Shape::of(byte), provider))).collect()
});

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    fn new(shape: Shape, provider: &Arc<CryptoProvider>) -> Self {
        let Identity { chain, key, roots } = &*IDENTITY;
        let verifier = || WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
        let server = ServerConfig::builder_with_provider(Arc::clone(provider));
        let server = server.with_protocol_versions(shape.version()).expect("a version");
        let server = match shape.client_certificate {
            true => server.with_client_cert_verifier(verifier().expect("a verifier")),
            false => server.with_no_client_auth(),
        };
        let client = ClientConfig::builder_with_provider(Arc::clone(provider));
        let client = client.with_protocol_versions(shape.version()).expect("a version");
        let client = client.with_root_certificates(Arc::clone(roots));
        let client = match shape.client_certificate {
            true => client.with_client_auth_cert(chain.clone(), key.clone_key()).expect("a certificate"),
            false => client.with_no_client_auth(),
        };
        Self {
            server: Arc::new(server.with_single_cert(chain.clone(), key.clone_key()).expect("a certificate")),
            client: Arc::new(client),
        }
    }
}

fn configs(shape: Shape) -> &'static [Configs; 2] {
    let byte = u8::from(!shape.we_serve) | u8::from(shape.tls12) << 1 | u8::from(shape.client_certificate) << 2;
    &CONFIGS[usize::from(byte)]
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Our end, and all that must be true of it.
pub(super) struct Ours {
    tls: Tls,
    /// What it wants to send.
    pub(super) reply: Vec<u8>,
    /// Bytes that it has sent.
    sent: usize,
    /// Messages that have come out, and that were not asked for yet.
    pub(super) heard: Vec<Vec<u8>>,
    failed: bool,
}

impl Ours {
    pub(super) fn new(shape: Shape) -> Self {
        let [ours, _] = configs(shape);
        let mut reply = Vec::new();
        let tls = if shape.we_serve {
            let most = if shape.client_certificate { HANDSHAKE_CHAIN } else { HANDSHAKE_PIECES };
            Tls::server(UnbufferedServerConnection::new(Arc::clone(&ours.server)).expect("a server"), most)
        } else {
            let connection = UnbufferedClientConnection::new(Arc::clone(&ours.client), name()).expect("a client");
            let mut tls = Tls::client(connection, HANDSHAKE_CHAIN);
            tls.begin(&mut reply).expect("a first flight");
            tls
        };
        Self { tls, reply, sent: 0, heard: Vec::new(), failed: false }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.tls.is_handshaking() && !self.failed
    }

    pub(super) fn is_over(&self) -> bool {
        self.failed || self.tls.peer_has_closed()
    }

    /// Takes the records that `bytes` begin with; returns what is left.
    pub(super) fn take<'b>(&mut self, bytes: &'b mut [u8]) -> &'b mut [u8] {
        let mut rest = bytes;
        while !self.tls.peer_has_closed() {
            let Ok(Some(length)) = record_len(rest) else { break };
            let (record, behind) = rest.split_at_mut(length);
            self.take_record(record);
            rest = behind;
        }
        rest
    }

    fn take_record(&mut self, record: &mut [u8]) {
        let mut count = 0;
        let taken = self.tls.take_record(record, &mut self.reply, |message| {
            count += 1;
            self.heard.push(message.to_vec());
        });
        assert!(count <= 1, "{count} messages in one record");
        self.note(taken.map(|()| 0));
    }

    /// Seals a message and forgets it, as far as that is possible.
    pub(super) fn seal(&mut self, message: &[u8]) {
        let mut out = vec![0; MAX_SEALED];
        let sealed = self.tls.seal(message, &mut out);
        if !self.tls.is_handshaking() || self.failed {
            self.note(sealed);
        } else {
            self.failed |= sealed.is_err();
        }
    }

    /// Says goodbye: nothing can be done with it afterwards.
    pub(super) fn close(&mut self) {
        self.tls.close(&mut self.reply);
        self.failed = true;
    }

    fn note(&mut self, result: Result<usize, TlsError>) {
        let was_over = self.failed;
        self.failed |= result.is_err();
        assert!(!was_over || matches!(result, Err(TlsError::Over)), "went on after its end: {result:?}");
        assert!(!matches!(result, Err(TlsError::Internal)), "rustls has panicked");
    }

    /// Everything that was to be sent so far.
    pub(super) fn take_reply(&mut self) -> Vec<u8> {
        self.sent += self.reply.len();
        assert!(self.sent < HANDSHAKE_BYTES, "{} bytes of answers", self.sent);
        std::mem::take(&mut self.reply)
    }
}

/// The other end. Over [`wild_provider`] application data are [`Peer::send`]'s.
pub(super) struct Peer(Connection);

impl Peer {
    /// `wild`: see [`wild_provider`].
    pub(super) fn new(shape: Shape, wild: bool) -> Self {
        let configs = &configs(shape)[usize::from(wild)];
        TRIM.set(0);
        let connection = if shape.we_serve {
            ClientConnection::new(Arc::clone(&configs.client), name()).expect("a client").into()
        } else {
            ServerConnection::new(Arc::clone(&configs.server)).expect("a server").into()
        };
        Self(connection)
    }

    pub(super) fn tls12(&self) -> bool {
        self.0.protocol_version() == Some(ProtocolVersion::TLSv1_2)
    }

    /// Hears what the other end says. What is wrong with it is of no interest.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.0.read_tls(&mut bytes).is_ok_and(|count| count > 0) {
            if self.0.process_new_packets().is_err() {
                return;
            }
        }
    }

    /// Its records so far.
    pub(super) fn records(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    /// Over the wild provider: one record of this type and content.
    pub(super) fn send(&mut self, kind: u8, content: &[u8]) {
        self.0.writer().write_all(&[&[kind], content].concat()).expect("a peer that is open");
    }

    /// New keys and the message that says so, without its first `trim` bytes. TLS 1.3 only.
    pub(super) fn update_keys(&mut self, trim: usize) {
        TRIM.set(trim);
        // There are none to update in TLS 1.2.
        let _ = self.0.refresh_traffic_keys();
        TRIM.set(0);
    }
}

/// Goes on until both have nothing to say.
pub(super) fn shake_hands(ours: &mut Ours, peer: &mut Peer) {
    for _ in 0..8 {
        peer.hear(&ours.take_reply());
        let mut records = peer.records();
        ours.take(&mut records);
    }
}

thread_local! {
    /// Bytes that the wild encrypter takes from the next handshake message.
    static TRIM: Cell<usize> = const { Cell::new(0) };
}

/// A provider whose application data are records of the content type that their first byte says.
fn wild_provider() -> CryptoProvider {
    let ring = ring::default_provider();
    let leak = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: common(&suite.common),
            hkdf_provider: suite.hkdf_provider,
            aead_alg: Box::leak(Box::new(Wild(suite.aead_alg))),
            quic: None,
        }))),
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common(&suite.common),
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: Box::leak(Box::new(Wild(suite.aead_alg))),
        }))),
    };
    CryptoProvider { cipher_suites: ring.cipher_suites.iter().map(leak).collect(), ..ring }
}

fn common(of: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon { suite: of.suite, hash_provider: of.hash_provider, confidentiality_limit: u64::MAX }
}

struct Wild<T>(T);

impl Tls13AeadAlgorithm for Wild<&'static dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Wild(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

impl Tls12AeadAlgorithm for Wild<&'static dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Wild(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}

impl MessageEncrypter for Wild<Box<dyn MessageEncrypter>> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let (mut typ, mut content) = (message.typ, message.payload.to_vec());
        match typ {
            ContentType::ApplicationData if !content.is_empty() => typ = ContentType::from(content.remove(0)),
            ContentType::Handshake => drop(content.drain(..TRIM.get().min(content.len()))),
            _ => {}
        }
        let payload = OutboundChunks::Single(&content);
        self.0.encrypt(OutboundPlainMessage { typ, version: message.version, payload }, sequence)
    }

    fn encrypted_payload_len(&self, payload: usize) -> usize {
        self.0.encrypted_payload_len(payload)
    }
}
