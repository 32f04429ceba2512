//! The temporary folder of a demo: settings, certificate, log. It goes when this goes.

use crate::cli::Failure;
use crate::cli::cert::Cert;
use crate::config::Config;
use crate::exit;
use crate::layout::Layout;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What everybody in the process has to say.
pub(super) const LOG: &str = "demo.log";
/// The certificate that users and the agent trust.
pub(super) const CERTIFICATE: &str = "server-cert.pem";
const SETTINGS: &str = "iofog-connector.conf";
/// Mappings that there are ports for: the demo's own, and some to try.
const MAPPINGS: usize = 4;
/// The certificate is valid for so long: no demo outlives it, and nobody is warned that it expires soon.
const DAYS: u16 = 90;

/// A folder that nobody else can look into.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("iofog-connector-demo-{}", uuid::Uuid::new_v4().simple()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be made: {e}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn name(&self) -> &Path {
        &self.0
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Everything that was logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).unwrap_or_default()
    }

    /// Writes the settings, on ports that are free now, and with `tls` makes a certificate.
    pub(super) fn furnish(&self, tls: bool) -> Result<Config, Failure> {
        let ports = free_ports(1 + 2 * MAPPINGS);
        let ports = ports.map_err(|e| Failure::new(exit::SYSTEM, format!("not enough free ports: {e}")))?;
        let settings = json!({
            "ports": ports[1..].iter().map(u16::to_string).collect::<Vec<_>>(),
            "address": "127.0.0.1",
            "listen": "127.0.0.1",
            "apiport": ports[0],
            "dev": !tls,
        });
        let file = self.path(SETTINGS);
        let written = fs::write(&file, format!("{settings:#}\n"));
        written
            .map_err(|e| Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {e}", file.display())))?;
        if tls {
            let (name, address) = (vec!["localhost".to_owned()], vec![Ipv4Addr::LOCALHOST.into()]);
            Cert { config: file.clone(), state: None, complete: false, name, address, days: DAYS }
                .run_in_own_folder()?;
        }
        Ok(Config::load(&Layout::new(file, None, None))?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the system's temporary folder, which is cleaned by others.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Different ports that are free at this moment.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let held = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<Vec<_>>>()?;
    held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}
