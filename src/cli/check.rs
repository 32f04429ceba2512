//! `check`: looks at everything that `start` would, without starting anything and without changing a file.

use super::output::{complain, say};
use super::running::Running;
use super::{Outcome, default_settings, identity};
use crate::config::Config;
use crate::control::read_token;
use crate::daemon::pidfile::{LockError, PidFile};
use crate::daemon::requirements::{Capacity, conflicts};
use crate::daemon::writer::Writer;
use crate::exit;
use crate::layout::Layout;
use crate::logging;
use crate::mapping::Mapping;
use crate::net::authority::Authority;
use crate::net::expiry::Expiry;
use crate::net::{certificate, provider, server_tls, tcp};
use crate::ports::ephemeral;
use crate::store;
use argh::FromArgs;
use nix::unistd::geteuid;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Validate settings, certificate, mappings and ports without starting anything.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub(super) struct Check {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// pid file, if the daemon is started with one of its own
    #[argh(option, arg_name = "file")]
    pid_file: Option<PathBuf>,
}

/// What a look has come to: a line for people.
enum Look {
    Good(String),
    /// Worth knowing, no fault.
    Note(String),
    Fault(String),
}

impl Check {
    pub fn run(self) -> Outcome {
        let layout = Layout::new(self.config, self.state, self.pid_file);
        identity::take_on(&layout, identity::PATIENCE)?;
        let looks = match Config::load(&layout) {
            Ok(config) => look_at_all(&config, &layout),
            Err(e) => vec![Look::Fault(e.to_string())],
        };
        let mut status = exit::OK;
        for look in looks {
            match look {
                Look::Good(line) => say(&line),
                Look::Note(line) => complain(&line),
                Look::Fault(line) => {
                    complain(&line);
                    status = exit::CONFIG;
                }
            }
        }
        Ok(status)
    }
}

fn look_at_all(config: &Config, layout: &Layout) -> Vec<Look> {
    let mode = if config.dev { "dev" } else { "TLS" };
    let settings = config.file.display();
    let mut looks =
        vec![Look::Good(format!("{settings}: good, {mode} mode, {} ports for mappings", config.ports.len()))];
    looks.extend(ephemeral::warning(&config.ports).map(Look::Note));
    if !config.dev {
        looks.extend(look_at_certificate(config));
    }
    looks.extend(config.api_token.as_deref().map(look_at_token));
    looks.extend(config.controller_ca.as_deref().map(look_at_authority));
    let file = config.state_file(store::FILE_NAME);
    let mappings = match store::load(&file) {
        Ok(mappings) => {
            looks.push(Look::Good(format!("{}: good, {} mappings", file.display(), mappings.len())));
            mappings
        }
        Err(e) => {
            looks.push(Look::Fault(e.to_string()));
            Vec::new()
        }
    };
    looks.extend(store::read_only(&config.state).map(Look::Note));
    looks.extend(Capacity::of(config).err().map(|e| Look::Fault(e.to_string())));
    looks.extend(config.log_file.as_deref().and_then(look_at_log));
    looks.extend(conflicts(config, &mappings).map(Look::Fault));
    // If the daemon runs it has its files and ports, and there is nothing to find out.
    if let Ok(Some(running)) = Running::find(&layout.pid_file) {
        looks.push(Look::Note(format!("the daemon runs ({running}): its pid file and its ports were not looked at")));
    } else {
        looks.extend(look_at_pid_file(layout));
        looks.extend(look_at_ports(config, &mappings));
    }
    looks
}

fn look_at_certificate(config: &Config) -> Vec<Look> {
    let folder = certificate::folder(config);
    let found = server_tls::server_tls(folder, None).and_then(|_| certificate::chain(folder));
    match found {
        Err(e) => vec![Look::Fault(e.to_string())],
        Ok((file, chain)) => {
            let (file, expiry) = (file.display(), chain.first().and_then(Expiry::of));
            let until = expiry.map_or(String::new(), |expiry| format!(", valid until {expiry}"));
            let good = Look::Good(format!("{file}: good, with its key{until}"));
            let note = expiry.and_then(|expiry| expiry.warning());
            [Some(good), note.map(|warning| Look::Note(format!("{file}: the certificate {warning}")))]
                .into_iter()
                .flatten()
                .collect()
        }
    }
}

fn look_at_token(file: &Path) -> Look {
    match read_token(file) {
        Ok(_) => Look::Good(format!("{}: good", file.display())),
        Err(e) => Look::Fault(e.to_string()),
    }
}

fn look_at_authority(file: &Path) -> Look {
    match Authority::read(file, Arc::new(provider::provider(provider::has_aes()))) {
        Ok(_) => Look::Good(format!("{}: good", file.display())),
        Err(e) => Look::Fault(format!("{e} (key \"controllerca\")")),
    }
}

/// `None`: the log file can be opened, or made, by this user.
fn look_at_log(file: &Path) -> Option<Look> {
    let error = logging::can_be_opened(file).err()?;
    Some(Look::Fault(format!("{} (key \"logfile\"): cannot be written: {error}", file.display())))
}

/// `None`: the pid file can be had.
fn look_at_pid_file(layout: &Layout) -> Option<Look> {
    match PidFile::can_be_made(&layout.pid_file).err()? {
        // `start --user` makes it as root there.
        LockError::System { path, cause } if cause.kind() == ErrorKind::PermissionDenied && is_made_by_root(layout) => {
            Some(Look::Note(format!("{}: the pid file: only root can tell ({cause})", path.display())))
        }
        e => Some(Look::Fault(e.to_string())),
    }
}

fn is_made_by_root(layout: &Layout) -> bool {
    !geteuid().is_root() && layout.decides_on_pid_file().all(|path| matches!(Writer::of(path), Ok(Writer::Root)))
}

/// Whether the ports are to be had.
fn look_at_ports(config: &Config, mappings: &[Mapping]) -> Vec<Look> {
    let own = [("the API", Some(config.api_port)), ("the broker", config.broker)];
    let own = own.into_iter().filter_map(|(who, port)| Some((who.to_owned(), port?)));
    let of_mappings = mappings.iter().flat_map(|mapping| {
        let who = format!("the mapping {}", mapping.id);
        mapping.ports().into_iter().flatten().map(move |port| (who.clone(), port))
    });
    let ports: Vec<_> = own.chain(of_mappings).collect();
    let mut looks: Vec<_> = ports.iter().filter_map(|(who, port)| look_at_port(config, who, *port)).collect();
    if looks.is_empty() {
        looks.push(Look::Good(format!("ports to be opened at the start: {}, all to be had", ports.len())));
    }
    looks
}

/// `None`: it can be bound.
fn look_at_port(config: &Config, who: &str, port: u16) -> Option<Look> {
    let error = tcp::listen(config.listen, port).err()?;
    Some(match error.kind() {
        ErrorKind::AddrNotAvailable => {
            Look::Fault(format!("port {port} of {who} could not be bound: `listen` is no address of this machine"))
        }
        ErrorKind::PermissionDenied => Look::Note(format!("port {port} of {who}: only root can tell ({error})")),
        _ => Look::Fault(format!("port {port} of {who} could not be bound: {error}")),
    })
}
