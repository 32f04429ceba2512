//! What the daemon reads from files, at its start and again at SIGHUP.
//!
//! All or nothing: everything is read and checked before anything is taken over, and whatever is wrong leaves
//! all as it was. Sessions are not touched: connections that exist keep the certificate they began with.

use super::error::StartError;
use super::supervisor::Supervisor;
use crate::config::Config;
use crate::control::read_token;
use crate::layout::Layout;
use crate::net::certificate::{self, ServerTls};
use crate::net::expiry::Expiry;
use crate::relay::command::Handle;
use log::{error, info, warn};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// TLS outside dev mode, and the API's token checked. Warns if the certificate ends soon.
pub(super) fn load_tls(config: &Config) -> Result<Option<ServerTls>, StartError> {
    if let Some(file) = &config.api_token {
        read_token(file).map_err(StartError::Token)?;
    }
    if config.dev {
        return Ok(None);
    }
    let folder = certificate::folder(config);
    let tls = certificate::server_tls(folder, config.controller_ca.as_deref()).map_err(StartError::Certificate)?;
    let (file, chain) = certificate::chain(folder).map_err(StartError::Certificate)?;
    if let Some(warning) = chain.first().and_then(Expiry::of).and_then(|expiry| expiry.warning()) {
        warn!("{}: the certificate {warning}", file.display());
    }
    Ok(Some(tls))
}

/// Reads the files again and hands them to those concerned.
pub(super) struct Reloader {
    pub layout: Layout,
    /// What the daemon was started with: the measure of what needs a restart.
    pub started: Config,
    pub relay: Handle,
    pub control: Sender<Config>,
    pub supervisor: Arc<Supervisor>,
}

impl Reloader {
    pub fn reload(&self) {
        self.supervisor.reloading();
        match load(&self.layout) {
            Ok((config, tls)) => self.take_over(config, tls),
            Err(e) => error!("Nothing is reloaded, all stays as it was: {e}"),
        }
        self.supervisor.ready();
    }

    fn take_over(&self, config: Config, tls: Option<ServerTls>) {
        let stays = self.started.needs_restart(&config);
        let file = config.file.display().to_string();
        // Between plain and TLS there is no change without a restart.
        if config.dev == self.started.dev && self.relay.reload(tls).is_err() {
            return; // The daemon is ending.
        }
        if self.control.send(config).is_err() {
            return; // The same.
        }
        // Last, so that what the log calls reloaded is in force: a token or a Controller taken away lets nobody in.
        info!("Reloaded {file} and the files that it names; sessions are not interrupted");
        if !stays.is_empty() {
            warn!("{file}: only a restart changes {}; the old values stay until then", stays.join(", "));
        }
    }
}

fn load(layout: &Layout) -> Result<(Config, Option<ServerTls>), StartError> {
    let config = Config::load(layout).map_err(StartError::Config)?;
    let tls = load_tls(&config)?;
    Ok((config, tls))
}
