//! `cert`: makes a self-signed certificate and its key beside the settings file. Never overwrites.

use super::output::say;
use super::{Failure, Outcome, default_settings};
use crate::config::folder_of;
use crate::exit;
use argh::FromArgs;
use nix::unistd::{Gid, Uid, fchown, geteuid};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

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
    /// a host name of this machine; may be given several times
    #[argh(option, arg_name = "host")]
    pub(super) name: Vec<String>,
    /// an IP address of this machine; may be given several times
    #[argh(option, arg_name = "ip")]
    pub(super) address: Vec<IpAddr>,
    /// how long it is valid, in days (default: 3650)
    #[argh(option, default = "3650", arg_name = "number")]
    pub(super) days: u16,
}

impl Cert {
    pub fn run(self) -> Outcome {
        let folder = folder_of(&self.config);
        let [certificate, key] = ["server-cert", "server-key"].map(|stem| folder.join(stem).with_extension("pem"));
        // The daemon takes either spelling: a new .pem would quietly replace an old .per.
        for file in [&certificate, &key] {
            if let Some(there) = [file.clone(), file.with_extension("per")].into_iter().find(|file| exists(file)) {
                return Err(Failure::new(exit::CANNOT_CREATE, format!("{}: is there already", there.display())));
            }
        }
        let until = self.until();
        let (pem, key_pem) = self.make(until)?;
        write(&key, &key_pem, 0o600)?;
        write(&certificate, &pem, 0o644).inspect_err(|_| drop(fs::remove_file(&key)))?;
        say(&format!("{}: valid until {}", certificate.display(), until.date()));
        say(&format!("{}: its key, keep it to this machine", key.display()));
        Ok(exit::OK)
    }

    fn until(&self) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc().max(date_time_ymd(THIS_YEAR, 1, 1));
        now + Duration::days(self.days.into())
    }

    /// Certificate and key in PEM: ECDSA on P-256, which small machines sign with quickly.
    fn make(&self, until: OffsetDateTime) -> Result<(String, String), Failure> {
        let mut parameters = CertificateParams::default();
        for name in &self.name {
            let dns = name.as_str().try_into().map_err(|_| misused(format!("--name {name}: no host name")))?;
            parameters.subject_alt_names.push(SanType::DnsName(dns));
        }
        parameters.subject_alt_names.extend(self.address.iter().map(|address| SanType::IpAddress(*address)));
        let first = self.name.first().cloned().or_else(|| Some(self.address.first()?.to_string()));
        let first = first.ok_or_else(|| misused("cert: expected at least one --name or --address"))?;
        parameters.distinguished_name.push(DnType::CommonName, first);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
        parameters.not_after = until;
        let failed = |e| Failure::new(exit::SOFTWARE, format!("no certificate could be made: {e}"));
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn misused(problem: impl fmt::Display) -> Failure {
    Failure::new(exit::USAGE, problem)
}

/// A link counts, wherever it leads.
fn exists(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

/// Writes a new file. Made by root it belongs to the owner of its folder, whom the daemon runs as.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let written = made.and_then(|mut made| {
        give_to_owner(&made, folder_of(file)).and_then(|()| made.write_all(text.as_bytes())).inspect_err(|_| {
            // Ours, and of no use.
            let _ = fs::remove_file(file);
        })
    });
    written.map_err(|e| Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {e}", file.display())))
}

fn give_to_owner(file: &File, folder: &Path) -> io::Result<()> {
    let owner = fs::metadata(folder)?;
    if geteuid().is_root() && owner.uid() != 0 {
        fchown(file.as_fd(), Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
    }
    Ok(())
}
