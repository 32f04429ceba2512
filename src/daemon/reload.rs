//! What the daemon reads from files, at its start and again at SIGHUP.
//!
//! All or nothing: everything is read and checked before anything is taken over, and whatever is wrong leaves
//! all as it was. Sessions are not touched: connections that exist keep the certificate they began with.

use super::error::StartError;
use crate::config::Config;
use crate::control::{Reload, read_token};
use crate::layout::Layout;
use crate::net::certificate;
use crate::net::expiry::Expiry;
use crate::net::server_tls::{self, ServerTls};
use crate::plural::need_restart;
use crate::relay::command::Handle;
use crate::secret::Secret;
use crate::supervisor::Supervisor;
use log::{error, info, warn};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// What the settings name, read once: what has been checked is what is taken over.
pub(super) struct Files {
    /// `None`: dev mode.
    pub tls: Option<ServerTls>,
    /// What API requests must carry.
    pub token: Option<Secret>,
}

impl Files {
    /// Reads them all. Warns if the certificate ends soon.
    pub fn read(config: &Config) -> Result<Self, StartError> {
        let token = config.api_token.as_deref().map(read_token).transpose()?;
        if config.dev {
            return Ok(Self { tls: None, token });
        }
        let tls = server_tls::server_tls(certificate::folder(config), config.controller_ca.as_deref())?;
        if let Some(warning) = tls.expiry.as_ref().and_then(Expiry::warning) {
            warn!("{}: the certificate {warning}", tls.file.display());
        }
        Ok(Self { tls: Some(tls), token })
    }
}

/// Reads the files again and hands them to those concerned.
pub(super) struct Reloader {
    pub layout: Layout,
    /// What the daemon was started with: the measure of what needs a restart.
    pub started: Config,
    pub relay: Handle,
    pub control: Sender<Reload>,
    pub supervisor: Arc<Supervisor>,
}

impl Reloader {
    pub fn reload(&self) {
        self.supervisor.reloading();
        match load(&self.layout) {
            Ok((config, files)) => self.take_over(config, files),
            Err(e) => {
                error!("Reload failed, nothing changed: {e}");
                // If nobody hears of it, the daemon is ending.
                let _ = self.control.send(Reload::Failed);
            }
        }
        self.supervisor.ready();
    }

    /// From here on nothing can fail, unless the daemon is ending.
    fn take_over(&self, config: Config, Files { tls, token }: Files) {
        let stays = self.started.needs_restart(&config);
        let (file, warnings) = (config.file.display().to_string(), config.warnings());
        // Between plain and TLS there is no change without a restart.
        if config.dev == self.started.dev && self.relay.reload(tls).is_err() {
            return; // The daemon is ending.
        }
        let admitted = self.relay.admit(config.controllers.clone());
        let trusted = self.relay.trust_proxy(config.trust_proxy.clone());
        let taken = Reload::TakenOver { config: Box::new(config), token };
        if admitted.is_err() || trusted.is_err() || self.control.send(taken).is_err() {
            return; // The same.
        }
        // Last, so that what the log calls reloaded is in force: a token or a Controller taken away lets nobody in.
        info!("Reloaded {file} and the files that it names; sessions are not interrupted");
        warnings.into_iter().for_each(|warning| warn!("{warning}"));
        if let Some(stay) = need_restart(&stays) {
            warn!("{file}: {stay}");
        }
    }
}

fn load(layout: &Layout) -> Result<(Config, Files), StartError> {
    let config = Config::load(layout)?;
    let files = Files::read(&config)?;
    Ok((config, files))
}
