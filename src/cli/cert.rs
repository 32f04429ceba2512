//! `cert`: makes a self-signed certificate and its key, beside the settings file or in a state folder. Never overwrites.
//!
//! Both are written, made durable and then renamed into place, the key first: after a power cut there may be a key
//! alone, and never half a file. `--complete` makes a certificate for such a key.

mod pair;
mod token;

use super::options::default_settings;
use super::output::{complain, say};
use super::{Failure, Outcome};
use crate::clock;
use crate::exit;
use crate::files;
use crate::layout::folder_of;
use crate::limits::CONFIG_FILE;
use argh::FromArgs;
use pair::Place;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};
use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use time::Duration;

/// A certificate is valid from this year on: peers without a clock of their own are years behind.
const FIRST_YEAR: i32 = 2020;
/// It was this year at least when the program was written, whatever the clock of this machine says.
const THIS_YEAR: i32 = 2026;

/// Make a self-signed certificate (server-cert.pem) and its key (server-key.pem) beside the settings file.
#[derive(FromArgs)]
#[argh(subcommand, name = "cert")]
pub(super) struct Cert {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    pub(super) config: PathBuf,
    /// make them in this folder, where the daemon looks if there are none beside the settings file
    #[argh(option, arg_name = "folder")]
    pub(super) state: Option<PathBuf>,
    /// only make what is missing: nothing if there is a pair, a certificate if there is a key alone; and the token, if the
    /// key "apitoken" names a file in the folder of --state
    #[argh(switch)]
    pub(super) complete: bool,
    /// a host name of this machine; may be given several times
    #[argh(option, arg_name = "host")]
    pub(super) name: Vec<String>,
    /// an IP address of this machine; may be given several times
    #[argh(option, arg_name = "ip")]
    pub(super) address: Vec<IpAddr>,
    /// how long it is valid, in days (default: 3650)
    #[argh(option, default = "3650", arg_name = "number", from_str_fn(days))]
    pub(super) days: u16,
}

impl Cert {
    pub fn run(self) -> Outcome {
        let subjects = self.subjects()?;
        let settings = Place::new(folder_of(&self.config));
        let place = self.state.as_deref().map_or_else(|| settings.clone(), Place::new);
        let found = place.found();
        if self.complete {
            if let Some(state) = &self.state {
                token::complete(&self.config, state)?;
            }
            // What the operator has put beside the settings comes first anyway, also if it is only half of it.
            let theirs = settings.found();
            let has_half = place != settings && theirs.iter().any(Option::is_some);
            if has_half || [&found, &theirs].iter().any(|pair| pair.iter().all(Option::is_some)) {
                return Ok(exit::OK);
            }
        } else if let Some(file) = found.iter().flatten().next() {
            return Err(Failure::new(exit::CANNOT_CREATE, format!("{}: is there already", file.display())));
        }
        // Missing names are an error only where a certificate is to be made.
        let parameters = self.parameters(subjects)?;
        place.enter()?;
        let key = match place.found() {
            [None, Some(file)] => kept_key(&place, &file)?,
            [Some(file), None] => {
                // A certificate is worth nothing without its key.
                complain(format!("{}: has no key", file.display()));
                place.set_aside(&file)?;
                None
            }
            _ => None,
        };
        self.make(&place, parameters, key)
    }

    /// Makes a pair in a folder that this process has just made for itself: it need not become anybody else.
    pub(super) fn run_in_own_folder(self) -> Outcome {
        let parameters = self.parameters(self.subjects()?)?;
        self.make(&Place::new(folder_of(&self.config)), parameters, None)
    }

    fn make(&self, place: &Place, parameters: CertificateParams, key: Option<KeyPair>) -> Outcome {
        let until = parameters.not_after;
        let names: Vec<String> = parameters.subject_alt_names.iter().map(text).collect();
        let names = names.join(", ");
        let failed = |e| Failure::new(exit::SOFTWARE, format!("no certificate could be made: {e}"));
        let (key, is_new) = match key {
            Some(key) => (key, false),
            None => (KeyPair::generate().map_err(failed)?, true),
        };
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        let key = is_new.then(|| key.serialize_pem());
        place.write(key.as_deref(), &certificate.pem())?;
        say(format!("{}: valid until {}", place.certificate().display(), until.date()));
        say(format!("  for {names}"));
        say(format!("  SHA-256 {}", fingerprint(certificate.der())));
        if is_new {
            say(format!("{}: its key, keep it to this machine", place.key().display()));
        }
        Ok(exit::OK)
    }

    /// What the certificate says. Its key is for ECDSA on P-256, which small machines sign with quickly.
    fn parameters(&self, subjects: Vec<SanType>) -> Result<CertificateParams, Failure> {
        let mut parameters = CertificateParams::default();
        let first = subjects.first().ok_or_else(|| misused("cert: expected at least one --name or --address"))?;
        parameters.distinguished_name.push(DnType::CommonName, text(first));
        parameters.subject_alt_names = subjects;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
        let now = clock::utc().max(date_time_ymd(THIS_YEAR, 1, 1));
        parameters.not_after = now + Duration::days(self.days.into());
        Ok(parameters)
    }

    /// Whom the certificate is for, each once.
    fn subjects(&self) -> Result<Vec<SanType>, Failure> {
        let addresses = self.address.iter().map(|address| Ok(SanType::IpAddress(*address)));
        let mut subjects = Vec::new();
        for subject in self.name.iter().map(|name| subject(name)).chain(addresses) {
            let subject = subject?;
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        Ok(subjects)
    }
}

/// What `--name` says: a host name, or an address after all.
fn subject(name: &str) -> Result<SanType, Failure> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = |expected: &str| misused(format!("--name: found {name:?}; expected {expected}"));
    if name.contains("://") {
        return Err(wrong("a host name alone, without https:// and path"));
    }
    if name.contains(':') {
        return Err(wrong("a host name alone, without a port"));
    }
    let is_label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        matches!(label.len(), 1..=63)
            && label.bytes().all(is_letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.strip_prefix("*.").unwrap_or(name).split('.').all(is_label) {
        return Err(wrong("a host name, like relay.example.org"));
    }
    name.try_into().map(SanType::DnsName).map_err(|_| wrong("a host name, like relay.example.org"))
}

fn text(subject: &SanType) -> String {
    match subject {
        SanType::IpAddress(address) => address.to_string(),
        SanType::DnsName(name) => name.to_string(),
        _ => String::new(),
    }
}

/// SHA-256 of the certificate, as other programs show it.
fn fingerprint(certificate: &[u8]) -> String {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { return String::new() };
    let hash = suite.common.hash_provider.hash(certificate);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn days(text: &str) -> Result<u16, String> {
    let days = text.parse().ok().filter(|days| *days > 0);
    days.ok_or_else(|| format!("expected a whole number, 1 to {}", u16::MAX))
}

/// The key of which the certificate is missing. One that cannot be used is put aside.
fn kept_key(place: &Place, file: &Path) -> Result<Option<KeyPair>, Failure> {
    let text = files::read_text(file, CONFIG_FILE).map_err(|e| e.to_string());
    match text.and_then(|text| KeyPair::from_pem(&text).map_err(|e| e.to_string())) {
        Ok(key) => {
            complain(format!("{}: its certificate is missing, a new one is made for it", file.display()));
            Ok(Some(key))
        }
        Err(reason) => {
            complain(format!("{}: has no certificate and cannot be used ({reason})", file.display()));
            place.set_aside(file).map(|()| None)
        }
    }
}

fn misused(problem: impl fmt::Display) -> Failure {
    Failure::new(exit::USAGE, problem)
}
