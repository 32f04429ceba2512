//! What an agent is told: where the Connector is, what it shows there, and what it makes reachable.
//!
//! A [`Draft`] is what the file and the options say, each key checked by itself. It is completed to [`Settings`], in
//! which nothing is missing or contradictory.

use super::proxy::Proxy;
use super::target::Target;
use crate::config;
use crate::exit;
use crate::files;
use crate::limits::CONFIG_FILE;
use crate::net::certificate::CertificateError;
use crate::net::tcp::Local;
use crate::net::trust::Trust;
use crate::secret::Secret;
use crate::wire::proxy_protocol::Version;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The environment variable that may hold the passcode. The command line may not: everybody can read it there.
pub const PASSCODE_VARIABLE: &str = "IOFOG_PASSCODE";
/// Connections to a Connector that speaks version 1, unless told otherwise.
pub const CONNECTIONS: u16 = 10;
/// The same of version 2: one that serves, and one for who comes next. It asks for more.
const FRAMED_CONNECTIONS: u16 = 2;
/// Interval of heartbeats, unless told otherwise. Milliseconds.
pub(super) const HEARTBEAT: u32 = 20_000;
/// Silence after a heartbeat that means the Connector is gone, unless told otherwise. Milliseconds.
pub(super) const ABSENCE: u32 = 60_000;
/// Where the local service is, unless told otherwise.
const LOCAL_HOST: &str = "127.0.0.1";

/// An agent's settings, complete and consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What its operator calls it; `None`: it is the only one.
    pub name: Option<Arc<str>>,
    pub connector: Target,
    /// Authorized connections to keep, at least 1.
    pub connections: u16,
    /// The same where the Connector does not speak version 2.
    pub connections_v1: u16,
    pub passcode: Secret,
    pub role: Role,
    /// Payload may be the words of a tunnel's listening end. At a public pipe it is the user's, whatever it is.
    pub may_tunnel: bool,
    /// The local service, or where local clients connect to.
    pub target: Target,
    /// Interval of heartbeats; `None`: never.
    pub heartbeat: Option<Duration>,
    /// A heartbeat that has been answered by silence for so long means that the connection is dead; `None`: never.
    pub absence: Option<Duration>,
    pub security: Security,
    /// Where connections to the Connector go out; `None`: the system chooses.
    pub bind: Option<Local>,
    /// Through whom it is reached; `None`: directly. In a box, since most services have none.
    pub proxy: Option<Box<Proxy>>,
    /// What is spoken with the Connector at most.
    pub protocol: Protocol,
    /// The local service is told where a user comes from.
    pub proxy_protocol: Option<Version>,
}

impl Settings {
    /// Whom to connect to on the way to the Connector.
    pub(super) fn first_hop(&self) -> &Target {
        self.proxy.as_ref().map_or(&self.connector, |proxy| &proxy.target)
    }
}

/// The versions of the pipe protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The field's.
    One,
    /// Frames, where the Connector knows them.
    Two,
}

impl TryFrom<u64> for Protocol {
    type Error = ();

    fn try_from(number: u64) -> Result<Self, ()> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(()),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: Option<u64> = text.parse().ok();
        number.and_then(|number| number.try_into().ok()).ok_or(format!("found {text:?}; expected 1 or 2"))
    }
}

/// What concerns the whole process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Where `/metrics` and `/healthz` are; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The file that sessions are listed in.
    pub access_log: Option<PathBuf>,
}

impl Process {
    /// The keys in which `new` differs: only a restart changes them.
    pub(super) fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let metrics = (self.metrics_listen != new.metrics_listen).then_some("metricslisten");
        let log = (self.access_log != new.access_log).then_some("accesslog");
        metrics.into_iter().chain(log).collect()
    }
}

/// What the agent's connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connect whoever comes through the Connector to a local service: users of a public pipe, or the clients of
    /// the other end of a tunnel.
    Expose,
    /// The listening end of a tunnel: connect local clients to what the other end exposes.
    Listen,
}

/// How the agent talks to the Connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Plain TCP: the Connector is in dev mode.
    Dev,
    /// The Connector shows a certificate for this name.
    Tls { trust: Arc<Trust>, name: ServerName<'static> },
}

/// The kind of pipe; the Connector's ports belong to one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Public,
    Private,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "public" => Ok(Self::Public),
            "private" => Ok(Self::Private),
            _ => Err(format!("{text:?} is no kind of pipe")),
        }
    }
}

/// What file and options say; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    pub name: Option<Arc<str>>,
    pub mode: Option<Mode>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub connections: Option<u16>,
    pub passcode: Option<Secret>,
    pub local_host: Option<String>,
    pub local_port: Option<u16>,
    pub listen: Option<Target>,
    /// Milliseconds; 0: never.
    pub heartbeat: Option<u32>,
    /// Milliseconds; 0: never.
    pub absence: Option<u32>,
    pub trust: Option<Arc<Trust>>,
    /// What the Connector's certificate is for, if not for its host.
    pub server_name: Option<String>,
    pub bind: Option<Local>,
    pub proxy: Option<Proxy>,
    pub protocol: Option<Protocol>,
    pub proxy_protocol: Option<Version>,
    pub dev: bool,
}

/// Why an agent cannot be set up. One line, for who has to mend it.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read, or what it says cannot be used.
    #[error("{}: {problem}", file.display())]
    File { file: PathBuf, problem: String },
    /// The same, of a file that the program's own settings are in.
    #[error("{}, {fault}", file.display())]
    Invalid { file: PathBuf, fault: config::SettingsFault },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An option has a wrong value, or does not go with another.
    #[error("{option}: {problem}")]
    Option { option: &'static str, problem: String },
    /// No source says something that is needed.
    #[error("{what} is missing: give {how}")]
    Missing { what: &'static str, how: &'static str },
}

impl SettingsError {
    /// The exit status: whether a file or the command line is to blame.
    pub fn status(&self) -> u8 {
        match self {
            Self::File { .. } | Self::Invalid { .. } | Self::Certificate(_) => exit::CONFIG,
            Self::Option { .. } | Self::Missing { .. } => exit::USAGE,
        }
    }

    pub(super) fn unreadable(file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::File { file: file.to_owned(), problem: format!("cannot be read: {cause}") }
    }
}

impl Draft {
    /// Fills in what nobody has to say, and refuses what cannot be guessed.
    pub fn complete(self) -> Result<Settings, SettingsError> {
        let missing = |what, how| SettingsError::Missing { what, how };
        let connector = "--connector HOST:PORT (or the keys \"host\" and \"port\" in the file)";
        let host = self.host.ok_or(missing("the Connector", connector))?;
        let port = self.port.ok_or(missing("the Connector's port", connector))?;
        let how = "--passcode-file FILE, the environment variable IOFOG_PASSCODE, or the key \"passcode\" in the file";
        let passcode = self.passcode.ok_or(missing("the passcode", how))?;
        let (role, target) = match self.listen {
            Some(_) if self.mode == Some(Mode::Public) => {
                let problem = "only one end of a private pipe listens; the file says \"mode\": \"public\"".to_owned();
                return Err(SettingsError::Option { option: "--listen", problem });
            }
            Some(on) => (Role::Listen, on),
            None => {
                let how = "--to HOST:PORT (or the key \"localport\" in the file), or --listen HOST:PORT for a tunnel";
                let port = self.local_port.ok_or(missing("the local service", how))?;
                let host = self.local_host.unwrap_or_else(|| LOCAL_HOST.to_owned());
                (Role::Expose, Target { host, port })
            }
        };
        let security = match self.dev {
            true => Security::Dev,
            false => Security::Tls {
                name: server_name(self.server_name.as_ref().unwrap_or(&host))?,
                trust: self.trust.unwrap_or_else(|| Arc::new(Trust::System)),
            },
        };
        let every = |time: u32| (time > 0).then(|| Duration::from_millis(time.into()));
        let protocol = self.protocol.unwrap_or(Protocol::Two);
        Ok(Settings {
            name: self.name,
            connector: Target { host, port },
            connections: self.connections.unwrap_or(connections(protocol)),
            connections_v1: self.connections.unwrap_or(CONNECTIONS),
            passcode,
            role,
            may_tunnel: self.mode != Some(Mode::Public),
            target,
            heartbeat: every(self.heartbeat.unwrap_or(HEARTBEAT)),
            absence: every(self.absence.unwrap_or(ABSENCE)),
            security,
            bind: self.bind,
            proxy: self.proxy.map(Box::new),
            protocol,
            proxy_protocol: self.proxy_protocol,
        })
    }
}

/// How many connections are kept unless the settings say so.
pub(super) fn connections(protocol: Protocol) -> u16 {
    if protocol == Protocol::Two { FRAMED_CONNECTIONS } else { CONNECTIONS }
}

/// The passcode in `file`, without the white space that editors leave behind it.
pub(super) fn passcode(file: &Path) -> Result<Secret, SettingsError> {
    let text = files::read_text(file, CONFIG_FILE).map_err(SettingsError::unreadable(file))?;
    match text.trim() {
        "" => Err(SettingsError::File { file: file.to_owned(), problem: "empty; the passcode was expected".into() }),
        passcode => Ok(Secret::new(passcode)),
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, SettingsError> {
    certified_name(host).map_err(|problem| SettingsError::Option { option: "the Connector's host", problem })
}

/// What a certificate has to be for.
pub(super) fn certified_name(host: &str) -> Result<ServerName<'static>, String> {
    let wrong = || format!("{host:?} is neither an IP address nor a name that a certificate could be for");
    ServerName::try_from(host.to_owned()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least() -> Draft {
        Draft {
            host: Some("connector.example".into()),
            port: Some(6000),
            passcode: Some(Secret::new("p")),
            local_port: Some(80),
            ..Draft::default()
        }
    }

    #[test]
    fn what_nobody_has_to_say_is_filled_in() {
        let settings = least().complete().unwrap();
        assert_eq!((settings.connections, settings.connections_v1), (FRAMED_CONNECTIONS, CONNECTIONS));
        let first = Draft { protocol: Some(Protocol::One), ..least() }.complete().unwrap();
        assert_eq!(first.connections, CONNECTIONS);
        assert_eq!((settings.role, settings.target.to_string().as_str()), (Role::Expose, "127.0.0.1:80"));
        assert_eq!((settings.heartbeat, settings.absence), ([20, 60].map(Duration::from_secs).map(Some)).into());
        assert!(matches!(&settings.security, Security::Tls { trust, .. } if **trust == Trust::System));
    }

    #[test]
    fn zero_means_never() {
        let never = Draft { heartbeat: Some(0), absence: Some(0), ..least() };
        let settings = never.complete().unwrap();
        assert_eq!((settings.heartbeat, settings.absence), (None, None));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let without = |change: fn(&mut Draft)| {
            let mut draft = least();
            change(&mut draft);
            draft.complete().unwrap_err().to_string()
        };
        assert!(without(|draft| draft.host = None).contains("--connector"));
        assert!(without(|draft| draft.port = None).contains("--connector"));
        assert!(without(|draft| draft.passcode = None).contains("--passcode-file"));
        assert!(without(|draft| draft.local_port = None).contains("--to"));
    }

    #[test]
    fn only_a_private_pipe_has_a_listening_end() {
        let listening = Draft { listen: Some("127.0.0.1:1".parse().unwrap()), ..least() };
        let private = Draft { mode: Some(Mode::Private), ..listening.clone() };
        let settings = private.complete().unwrap();
        assert_eq!((settings.role, settings.target.to_string().as_str()), (Role::Listen, "127.0.0.1:1"));
        let public = Draft { mode: Some(Mode::Public), ..listening };
        assert!(public.complete().unwrap_err().to_string().contains("--listen"));
    }

    #[test]
    fn the_passcode_is_not_shown() {
        let draft = Draft { passcode: Some(Secret::new("hush-hush")), ..least() };
        assert!(!format!("{draft:?} {:?}", draft.clone().complete()).contains("hush-hush"));
    }
}
