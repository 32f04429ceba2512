//! `check`: looks at everything that `start` would, without starting anything and without changing a file.
//!
//! What `start` would end with, and that no mapping could ever be added, is a fault. What it would live with is said,
//! too, and no fault: a script that checks before it restarts must not be kept from that by one mapping.

use super::output::{complain, say};
use super::{Outcome, identity};
use crate::config::Config;
use crate::control::read_token;
use crate::daemon::pidfile::{LockError, PidFile, Running};
use crate::daemon::requirements::{Capacity, conflicts, misfits, too_many_connections};
use crate::daemon::writer;
use crate::exit;
use crate::layout::Layout;
use crate::logging;
use crate::mapping::Mapping;
use crate::net::authority::Authority;
use crate::net::expiry::Expiry;
use crate::net::{certificate, provider, server_tls, tcp};
use crate::plural::counted;
use crate::ports::ephemeral;
use crate::store;
use nix::unistd::geteuid;
use std::fmt::Display;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

daemon_command! {
    /// Validate settings, certificate, mappings and ports without starting anything.
    "check" Check with pid_file {}
}

impl Check {
    pub fn run(self) -> Outcome {
        let layout = self.layout();
        identity::take_on(&layout, identity::TIMEOUT)?;
        let config = Config::load(&layout)?;
        let mut verdict = Verdict { status: exit::OK };
        look_at_files(&config, &mut verdict);
        let mappings = look_at_mappings(&config, &mut verdict);
        too_many_connections(&config).into_iter().for_each(complain);
        if let Err(e) = Capacity::of(&config) {
            verdict.fault(e);
        }
        conflicts(&config, &mappings).for_each(complain);
        misfits(&config, &mappings).for_each(complain);
        // If the daemon runs it has its files and ports, and there is nothing to find out.
        if let Ok(Some(running)) = Running::find(&layout.pid_file) {
            complain(format!("the daemon runs ({running}): its pid file and its ports were not tested"));
        } else {
            look_at_pid_file(&layout, &mut verdict);
            look_at_ports(&config, &mappings, &mut verdict);
        }
        Ok(verdict.status)
    }
}

/// The exit status that the looks come to.
struct Verdict {
    status: u8,
}

impl Verdict {
    fn fault(&mut self, line: impl Display) {
        complain(line);
        self.status = exit::CONFIG;
    }

    /// Names a file that is good, and what else is to be said of it; or the fault.
    fn of_file<E: Display>(&mut self, file: &Path, found: Result<String, E>) {
        match found {
            Ok(more) => say(format!("{}: good{more}", file.display())),
            Err(e) => self.fault(e),
        }
    }
}

/// Those that the settings name, and themselves.
fn look_at_files(config: &Config, verdict: &mut Verdict) {
    let mode = if config.dev { "dev" } else { "TLS" };
    let ports = counted(config.ports.len(), "port");
    say(format!("{}: good, {mode} mode, {ports} for mappings", config.file.display()));
    config.warnings().into_iter().for_each(complain);
    if config.has_too_few_ports() {
        verdict.status = exit::CONFIG;
    }
    ephemeral::warning(&config.ports).into_iter().for_each(complain);
    if !config.dev {
        look_at_certificate(config, verdict);
    }
    if let Some(file) = &config.api_token {
        verdict.of_file(file, read_token(file).map(|_| String::new()));
    }
    if let Some(file) = &config.controller_ca {
        let authority = Authority::read(file, Arc::new(provider::provider(provider::has_aes())));
        let found = authority.map(|_| String::new()).map_err(|e| format!("{e} (key \"controllerca\")"));
        verdict.of_file(file, found);
    }
    for (key, file) in [("logfile", &config.log_file), ("accesslog", &config.access_log)] {
        let Some(file) = file else { continue };
        if let Err(e) = logging::can_be_opened(file) {
            verdict.fault(format!("{} (key {key:?}): cannot be written: {e}", file.display()));
        }
    }
}

fn look_at_certificate(config: &Config, verdict: &mut Verdict) {
    let folder = certificate::folder(config);
    let (file, chain) = match server_tls::server_tls(folder, None).and_then(|_| certificate::chain(folder)) {
        Ok(found) => found,
        Err(e) => return verdict.fault(e),
    };
    let expiry = chain.first().and_then(Expiry::of);
    let until = expiry.map_or(String::new(), |expiry| format!(", valid until {expiry}"));
    say(format!("{}: good, with its key{until}", file.display()));
    if let Some(warning) = expiry.and_then(|expiry| expiry.warning()) {
        complain(format!("{}: the certificate {warning}", file.display()));
    }
}

fn look_at_mappings(config: &Config, verdict: &mut Verdict) -> Vec<Mapping> {
    let file = config.state_file(store::FILE_NAME);
    let found = store::load(&file);
    let mappings = found.as_ref().map_or(Vec::new(), Vec::clone);
    verdict.of_file(&file, found.map(|mappings| format!(", {}", counted(mappings.len(), "mapping"))));
    store::read_only(&config.state).into_iter().for_each(complain);
    mappings
}

fn look_at_pid_file(layout: &Layout, verdict: &mut Verdict) {
    match PidFile::can_be_made(&layout.pid_file) {
        Ok(()) => {}
        // `start --user` makes it as root there.
        Err(LockError::System { path, cause })
            if cause.kind() == ErrorKind::PermissionDenied && is_made_by_root(layout) =>
        {
            complain(format!("{}: the pid file: only root can test it ({cause})", path.display()));
        }
        Err(e) => verdict.fault(e),
    }
}

fn is_made_by_root(layout: &Layout) -> bool {
    !geteuid().is_root() && writer::is_only_root(layout.decides_on_pid_file()).unwrap_or(false)
}

/// A port that a start opens.
struct Port {
    whose: String,
    address: Option<IpAddr>,
    number: u16,
    /// The key that says which address it is bound to.
    key: &'static str,
    /// Nothing starts without it; the others are tried again every second.
    is_needed: bool,
}

fn ports_to_open(config: &Config, mappings: &[Mapping]) -> Vec<Port> {
    let port = |whose: &str, number| Port {
        whose: whose.to_owned(),
        address: config.listen,
        number,
        key: "listen",
        is_needed: false,
    };
    let api = Port { is_needed: true, ..port("the API", config.api_port) };
    let broker = config.broker.map(|number| port("the broker", number));
    let of_mappings = mappings.iter().flat_map(|mapping| {
        let numbers = mapping.ports().into_iter().flatten();
        numbers.map(|number| port(&format!("the mapping {}", mapping.id), number))
    });
    let metrics = config.metrics_listen.map(|it| {
        let key = "metricslisten";
        Port { address: Some(it.ip()), key, ..port(key, it.port()) }
    });
    std::iter::once(api).chain(broker).chain(of_mappings).chain(metrics).collect()
}

/// Whether the ports are free.
fn look_at_ports(config: &Config, mappings: &[Mapping], verdict: &mut Verdict) {
    let ports = ports_to_open(config, mappings);
    let mut are_free = true;
    for Port { whose, address, number, key, is_needed } in &ports {
        let Err(error) = tcp::listen(*address, *number) else { continue };
        are_free = false;
        let why = match error.kind() {
            ErrorKind::PermissionDenied => {
                complain(format!("port {number} of {whose}: only root can test it ({error})"));
                continue;
            }
            ErrorKind::AddrNotAvailable => format!("`{key}` is no address of this machine"),
            _ => error.to_string(),
        };
        let problem = format!("port {number} of {whose} could not be bound: {why}");
        if *is_needed {
            verdict.fault(problem);
        } else {
            complain(format!("{problem}; after a start it is tried again every second"));
        }
    }
    if are_free {
        say(format!("ports to be opened at the start: {}, all free", ports.len()));
    }
}
