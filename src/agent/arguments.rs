//! The command line of `iofog-connector agent`, laid over the file that it names.

use super::proxy::Proxy;
use super::services_file::Listed;
use super::settings::{Draft, PASSCODE_VARIABLE, Process, Protocol, Settings, SettingsError, passcode};
use super::target::Target;
use super::{file, services_file};
use crate::files;
use crate::layout::is_one_file;
use crate::limits::CONFIG_FILE;
use crate::logging::Format;
use crate::net::certificate::read_chain;
use crate::net::tcp::Local;
use crate::net::trust::Trust;
use crate::secret::Secret;
use crate::wire::proxy_protocol::Version;
use argh::FromArgs;
use log::LevelFilter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keep connections to a Connector and join those who come through it to a local service (--to). With --listen:
/// the listening end of a tunnel through a private pipe.
///
/// The passcode is read from --passcode-file, from the file that --config names, or from the environment variable
/// IOFOG_PASSCODE. Options win over the file.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "agent")]
pub struct Arguments {
    /// settings file (JSON): of several services, or as Core Networking has it
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// where the Connector is
    #[argh(option, arg_name = "host:port")]
    connector: Option<Target>,
    /// file that holds the passcode and nothing else
    #[argh(option, arg_name = "file")]
    passcode_file: Option<PathBuf>,
    /// the local service that is made reachable
    #[argh(option, arg_name = "host:port")]
    to: Option<Target>,
    /// where local clients of a tunnel connect to
    #[argh(option, arg_name = "host:port")]
    listen: Option<Target>,
    /// connections to keep: how many can be served at once in version 1 of the pipe protocol (default: 10), how many are
    /// ready in version 2 (default: 2)
    #[argh(option, arg_name = "n")]
    connections: Option<u16>,
    /// the Connector's certificate, accepted whatever name it is for, or that of the authority that signed it (PEM;
    /// default: the system's authorities)
    #[argh(option, arg_name = "file")]
    ca: Option<PathBuf>,
    /// the name that the Connector's certificate is for, if it is not the one that is dialled
    #[argh(option, arg_name = "name")]
    server_name: Option<String>,
    /// local IP address or network interface that connections to the Connector come from
    #[argh(option, arg_name = "ip|interface")]
    bind: Option<Local>,
    /// proxy on the way out, socks5://HOST:PORT or http://HOST:PORT; one with a password belongs into a settings file
    #[argh(option, arg_name = "url")]
    proxy: Option<Proxy>,
    /// version of the pipe protocol: 2 (default) is spoken where the Connector knows it, 1 everywhere
    #[argh(option, arg_name = "n")]
    protocol: Option<Protocol>,
    /// begin what the local service gets with a PROXY header, v1 or v2, that says where the user comes from
    #[argh(option, arg_name = "version")]
    proxy_protocol: Option<Version>,
    /// plain TCP: the Connector is in dev mode
    #[argh(switch)]
    dev: bool,
    /// milliseconds between heartbeats (default: 20000; 0: none)
    #[argh(option, arg_name = "ms")]
    heartbeat: Option<u32>,
    /// milliseconds without an answer to a heartbeat after which a connection is dead (default: 60000; 0: never)
    #[argh(option, arg_name = "ms")]
    threshold: Option<u32>,
    /// IP address and port where /metrics and /healthz are, for everybody who can connect
    #[argh(option, arg_name = "ip:port")]
    metrics_listen: Option<SocketAddr>,
    /// file that each session is listed in when it ends
    #[argh(option, arg_name = "file")]
    access_log: Option<PathBuf>,
    /// file to log to (default: standard error)
    #[argh(option, arg_name = "file")]
    pub log_file: Option<PathBuf>,
    /// error, warn, info (default), debug or trace
    #[argh(option, arg_name = "level", default = "LevelFilter::Info")]
    pub log_level: LevelFilter,
    /// text (default) or json: what lines of the log and the access log look like
    #[argh(option, arg_name = "format", default = "Format::Text")]
    pub log_format: Format,
    /// unix socket for `agent status`: made by the agent, asked by the command
    #[argh(option, arg_name = "file")]
    pub socket: Option<PathBuf>,
    #[argh(subcommand)]
    pub command: Option<Command>,
}

/// What else can be asked for than to run.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand)]
pub enum Command {
    Check(Check),
    Status(Status),
}

/// Validate settings and the files that they name, without starting anything.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// settings file
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
}

/// Tell what the agent does: its services, connections, sessions, bytes and last errors.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "status")]
pub struct Status {
    /// the agent's --socket (default: /run/iofog-connector-agent/iofog-connector-agent.sock)
    #[argh(option, arg_name = "file")]
    pub socket: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

impl Arguments {
    /// The settings file, named before the command or behind it.
    pub fn config(&self) -> Option<&Path> {
        let behind = self.command.as_ref().and_then(|command| match command {
            Command::Check(check) => check.config.as_deref(),
            Command::Status(_) => None,
        });
        behind.or(self.config.as_deref())
    }

    /// What concerns the process, and the services that these are about: those that the settings file lists, or the one
    /// of file and options.
    pub fn read(&self) -> Result<(Process, Vec<Settings>), SettingsError> {
        let Listed { process, services, files } = self.listed()?;
        let own = [self.config(), self.log_file.as_deref(), self.ca.as_deref(), self.passcode_file.as_deref()];
        let mut own = own.into_iter().flatten().chain(files.iter().map(PathBuf::as_path));
        match &process.access_log {
            Some(log) if own.any(|file| is_one_file(log, file)) => {
                let problem = "accesslog: the agent needs it for something else; expected a file of its own".to_owned();
                Err(SettingsError::File { file: log.clone(), problem })
            }
            _ => Ok((process, services)),
        }
    }

    /// Whether `--log-file` is none of the files that the agent reads or writes, as far as they are known.
    pub fn log_file_is_its_own(&self) -> Result<(), SettingsError> {
        let Some(log) = self.log_file.as_deref() else { return Ok(()) };
        // What is wrong with the settings is for the log to tell.
        let files = self.listed().map_or(Vec::new(), |listed| listed.files);
        let named = [self.config(), self.ca.as_deref(), self.passcode_file.as_deref()].into_iter().flatten();
        match named.chain(files.iter().map(PathBuf::as_path)).find(|file| is_one_file(log, file)) {
            None => Ok(()),
            Some(file) => {
                let file = file.display();
                let problem = format!("the agent needs {file} for something else; expected a file of its own");
                Err(SettingsError::Option { option: "--log-file", problem })
            }
        }
    }

    fn listed(&self) -> Result<Listed, SettingsError> {
        let process = Process { metrics_listen: self.metrics_listen, access_log: self.access_log.clone() };
        let only =
            |draft| Ok(Listed { process: process.clone(), services: vec![self.settings(draft)?], files: Vec::new() });
        let Some(file) = self.config() else { return only(Draft::default()) };
        let text = files::read(file, CONFIG_FILE).map_err(SettingsError::unreadable(file))?;
        if !services_file::is_one(&text) {
            return only(file::read(file, &text)?);
        }
        match self.options().into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => {
                let problem = format!("{} lists services; give it there", file.display());
                Err(SettingsError::Option { option, problem })
            }
            None => {
                let listed = services_file::parse(file, &text)?;
                let metrics_listen = process.metrics_listen.or(listed.process.metrics_listen);
                let access_log = process.access_log.or(listed.process.access_log);
                Ok(Listed { process: Process { metrics_listen, access_log }, ..listed })
            }
        }
    }

    /// What says something about a service, and whether it is given.
    fn options(&self) -> [(&'static str, bool); 14] {
        [
            ("--connector", self.connector.is_some()),
            ("--passcode-file", self.passcode_file.is_some()),
            ("--to", self.to.is_some()),
            ("--listen", self.listen.is_some()),
            ("--connections", self.connections.is_some()),
            ("--ca", self.ca.is_some()),
            ("--server-name", self.server_name.is_some()),
            ("--bind", self.bind.is_some()),
            ("--proxy", self.proxy.is_some()),
            ("--protocol", self.protocol.is_some()),
            ("--proxy-protocol", self.proxy_protocol.is_some()),
            ("--dev", self.dev),
            ("--heartbeat", self.heartbeat.is_some()),
            ("--threshold", self.threshold.is_some()),
        ]
    }

    /// Puts together what options, file and environment say. The first one that says something wins.
    fn settings(&self, file: Draft) -> Result<Settings, SettingsError> {
        let wrong = |option, problem: &str| Err(SettingsError::Option { option, problem: problem.to_owned() });
        if self.to.is_some() && self.listen.is_some() {
            return wrong("--listen", "one end of a tunnel listens, the other has --to; not both");
        }
        if self.proxy.as_ref().is_some_and(Proxy::has_login) {
            return wrong("--proxy", "everybody can read a password here; give it in a settings file with services");
        }
        if self.connections == Some(0) {
            return wrong("--connections", "found 0; expected a whole number, 1 to 65535");
        }
        let passcode = self.passcode_file.as_deref().map(passcode).transpose()?;
        let certificates = self.ca.as_deref().map(read_chain).transpose()?;
        let (connector, to) = (self.connector.clone(), self.to.clone());
        let settings = Draft {
            name: None,
            mode: file.mode,
            port: connector.as_ref().map(|it| it.port).or(file.port),
            host: connector.map(|it| it.host).or(file.host),
            connections: self.connections.or(file.connections),
            passcode: passcode.or(file.passcode).or_else(passcode_in_environment),
            local_port: to.as_ref().map(|it| it.port).or(file.local_port),
            local_host: to.map(|it| it.host).or(file.local_host),
            listen: self.listen.clone(),
            heartbeat: self.heartbeat.or(file.heartbeat),
            absence: self.threshold.or(file.absence),
            trust: certificates.map(Trust::Certificates).map(Arc::new).or(file.trust),
            server_name: self.server_name.clone(),
            bind: self.bind.clone(),
            proxy: self.proxy.clone(),
            protocol: self.protocol.or(file.protocol),
            proxy_protocol: self.proxy_protocol,
            dev: self.dev || file.dev,
        };
        settings.complete()
    }
}

fn passcode_in_environment() -> Option<Secret> {
    std::env::var(PASSCODE_VARIABLE).ok().filter(|text| !text.is_empty()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::settings::{Role, Security};
    use crate::testing::Folder;

    fn settings(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Arguments::from_args(&["agent"], arguments).expect("well-formed options").read().map(|(_, mut it)| it.remove(0))
    }

    #[test]
    fn options_win_over_the_file() {
        let folder = Folder::new();
        let (file, secret) = (folder.0.join("agent.json"), folder.0.join("passcode"));
        std::fs::write(&file, r#"{"host":"a","port":1,"passcode":"from file","localport":80,"devmode":true}"#).unwrap();
        std::fs::write(&secret, "from option\n").unwrap();
        let (file, secret) = (file.to_str().unwrap(), secret.to_str().unwrap());
        let plain = settings(&["--config", file]).unwrap();
        assert_eq!((plain.connector.to_string().as_str(), plain.passcode.expose()), ("a:1", "from file"));
        assert_eq!(plain.security, Security::Dev);
        let changed =
            settings(&["--config", file, "--connector", "[::1]:2", "--to", "web:81", "--passcode-file", secret]);
        let changed = changed.unwrap();
        assert_eq!((changed.connector.host.as_str(), changed.connector.port), ("::1", 2));
        assert_eq!(changed.passcode.expose(), "from option");
        assert_eq!((changed.role, changed.target.to_string().as_str()), (Role::Expose, "web:81"));
    }

    #[test]
    fn what_is_wrong_names_its_option_or_file() {
        let folder = Folder::new();
        let empty = folder.0.join("empty");
        std::fs::write(&empty, " \n").unwrap();
        let empty = empty.to_str().unwrap();
        for (arguments, words) in [
            (&["--to", "a:1", "--listen", "b:1"][..], "--listen: one end"),
            (&["--connections", "0"], "--connections: found 0; expected"),
            (&["--passcode-file", empty], "empty; the passcode was expected"),
            (&["--passcode-file", "/nowhere"], "/nowhere: cannot be read"),
            (&["--ca", empty], "no certificate"),
            (&["--config", "/nowhere"], "/nowhere: cannot be read"),
        ] {
            let error = settings(arguments).unwrap_err().to_string();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }
}
