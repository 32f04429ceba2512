//! `status`: tells whether the daemon runs, and what it does.
//!
//! Whether it runs is decided by the lock on its pid file, and by an answer of its API: a daemon that holds the
//! lock and does not answer (it is starting, or stuck) is one of which nobody can tell. One that is stopping is neither
//! running nor stopped: who waits for either goes on waiting.

mod report;

use super::client::{Client, ClientError};
use super::output::{complain, say, say_facts};
use super::running::Running;
use super::{Outcome, default_settings, identity};
use crate::config::Config;
use crate::exit;
use crate::layout::Layout;
use argh::FromArgs;
use report::Report;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What a look at the lock may take. Init scripts look again and again.
const PATIENCE_FOR_LOCK: Duration = Duration::from_secs(5);

/// Tell whether the daemon runs, and what it does.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
pub(super) struct Status {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// pid file, if the daemon was started with one of its own
    #[argh(option, arg_name = "file")]
    pid_file: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// only look whether a process holds the lock, and print nothing: status 0 or 3, or why that cannot be told
    #[argh(switch)]
    lock: bool,
}

/// What can be told.
enum Finding {
    Running(Report),
    /// It has been told to end, and still delivers what is in flight.
    Stopping(Report),
    Stopped,
    Unknown(String),
}

impl Status {
    pub fn run(self) -> Outcome {
        let layout = Layout::new(self.config, self.state, self.pid_file);
        identity::take_on(&layout, if self.lock { PATIENCE_FOR_LOCK } else { identity::PATIENCE })?;
        let finding = match Running::find(&layout.pid_file) {
            Ok(None) => Finding::Stopped,
            Ok(Some(_)) if self.lock => return Ok(exit::OK),
            Ok(Some(running)) => look(&running, &layout),
            Err(reason) => Finding::Unknown(reason),
        };
        if self.lock {
            if let Finding::Unknown(reason) = &finding {
                complain(&format!("not able to tell: {reason}"));
            }
            return Ok(finding.status());
        }
        if self.json {
            say(&to_json(&finding).to_string());
        } else {
            tell(&finding);
        }
        Ok(finding.status())
    }
}

impl Finding {
    fn status(&self) -> u8 {
        match self {
            Self::Running(_) => exit::OK,
            Self::Stopped => exit::STOPPED,
            Self::Stopping(_) | Self::Unknown(_) => exit::UNKNOWN,
        }
    }
}

fn look(running: &Running, layout: &Layout) -> Finding {
    match ask(layout) {
        Ok((config, url, answer)) => {
            let stopping = says_stopping(&answer);
            let report = Report::new(&config, running.pid(), url, answer);
            if stopping { Finding::Stopping(report) } else { Finding::Running(report) }
        }
        Err(reason) => Finding::Unknown(format!("{running} holds {}, but {reason}", layout.pid_file.display())),
    }
}

/// What the daemon says of itself. A daemon that refuses to say it is running all the same.
fn ask(layout: &Layout) -> Result<(Config, String, Result<Value, String>), String> {
    let config = Config::load(layout).map_err(|e| e.to_string())?;
    let client = Client::of(&config).map_err(|e| e.to_string())?;
    let answer = match client.post("/api/v2/status", &[("mappingid", "all")]) {
        Ok(answer) => Ok(answer),
        Err(refusal @ ClientError::Refused { .. }) => Err(refusal.to_string()),
        Err(e) => return Err(e.to_string()),
    };
    Ok((config, client.url(), answer))
}

/// Whether the daemon of these settings says that it has been told to end.
pub(super) fn is_stopping(layout: &Layout) -> bool {
    ask(layout).is_ok_and(|(_, _, answer)| says_stopping(&answer))
}

fn says_stopping(answer: &Result<Value, String>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer["status"] == "stopping")
}

fn tell(finding: &Finding) {
    match finding {
        Finding::Running(report) => {
            say("iofog-connector is up and running.");
            say_facts(&report.facts());
            report.warnings().iter().for_each(|warning| complain(warning));
        }
        Finding::Stopping(report) => {
            say("iofog-connector is stopping.");
            say_facts(&report.facts());
        }
        Finding::Stopped => say("iofog-connector is stopped."),
        Finding::Unknown(reason) => complain(&format!("not able to tell: {reason}")),
    }
}

fn to_json(finding: &Finding) -> Value {
    match finding {
        Finding::Running(report) => report.to_json("running"),
        Finding::Stopping(report) => report.to_json("stopping"),
        Finding::Stopped => json!({"status": "stopped"}),
        Finding::Unknown(reason) => json!({"status": "unknown", "reason": reason}),
    }
}
