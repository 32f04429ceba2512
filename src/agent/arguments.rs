//! The command line of `iofog-connector agent`, laid over the file that it names.

use super::file;
use super::settings::{Draft, PASSCODE_VARIABLE, Settings, SettingsError};
use super::target::Target;
use crate::files;
use crate::limits::CONFIG_FILE;
use crate::net::certificate::read_chain;
use crate::net::trust::Trust;
use crate::secret::Secret;
use argh::FromArgs;
use log::LevelFilter;
use std::path::{Path, PathBuf};

/// Keep connections to a Connector and join those who come through it to a local service (--to). With --listen:
/// the listening end of a tunnel through a private pipe.
///
/// The passcode is read from --passcode-file, from the file that --config names, or from the environment variable
/// IOFOG_PASSCODE. Options win over the file.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "agent")]
pub struct Arguments {
    /// settings file, as Core Networking has it (JSON)
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
    /// connections to keep, which is how many can be served at once (default: 10)
    #[argh(option, arg_name = "n")]
    connections: Option<u16>,
    /// the Connector's certificate, or that of the authority that signed it (PEM; default: the system's authorities)
    #[argh(option, arg_name = "file")]
    ca: Option<PathBuf>,
    /// plain TCP: the Connector is in dev mode
    #[argh(switch)]
    dev: bool,
    /// milliseconds between heartbeats (default: 20000; 0: none)
    #[argh(option, arg_name = "ms")]
    heartbeat: Option<u32>,
    /// milliseconds without an answer to a heartbeat after which a connection is dead (default: 60000; 0: never)
    #[argh(option, arg_name = "ms")]
    threshold: Option<u32>,
    /// error, warn, info (default), debug or trace
    #[argh(option, arg_name = "level", default = "LevelFilter::Info")]
    pub log_level: LevelFilter,
}

impl Arguments {
    /// Puts together what options, file and environment say. The first one that says something wins.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let wrong = |option, problem: &str| Err(SettingsError::Option { option, problem: problem.to_owned() });
        if self.to.is_some() && self.listen.is_some() {
            return wrong("--listen", "one end of a tunnel listens, the other has --to; not both");
        }
        if self.connections == Some(0) {
            return wrong("--connections", "found 0; expected a whole number, 1 to 65535");
        }
        let passcode = self.passcode_file.as_deref().map(passcode).transpose()?;
        let certificates = self.ca.as_deref().map(read_chain).transpose()?;
        let file = self.config.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let (connector, to) = (self.connector.clone(), self.to.clone());
        let settings = Draft {
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
            trust: certificates.map(Trust::Certificates).or(file.trust),
            dev: self.dev || file.dev,
        };
        settings.complete()
    }
}

fn passcode_in_environment() -> Option<Secret> {
    std::env::var(PASSCODE_VARIABLE).ok().filter(|text| !text.is_empty()).map(Secret::new)
}

/// The passcode in `file`, without the white space that editors leave behind it.
fn passcode(file: &Path) -> Result<Secret, SettingsError> {
    let text = files::read_text(file, CONFIG_FILE).map_err(SettingsError::unreadable(file))?;
    match text.trim() {
        "" => Err(SettingsError::File { file: file.to_owned(), problem: "empty; the passcode was expected".into() }),
        passcode => Ok(Secret::new(passcode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::settings::{Role, Security};
    use crate::testing::Folder;

    fn settings(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Arguments::from_args(&["agent"], arguments).expect("well-formed options").settings()
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
