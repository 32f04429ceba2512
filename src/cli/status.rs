//! `status`: shows whether the daemon runs, and what it does.
//!
//! Whether it runs is decided by the lock on its pid file, and by an answer of its API: a daemon that holds the
//! lock and does not answer (it is starting, or stuck) is one whose state is unknown. One that is stopping is neither
//! running nor stopped: who waits for either goes on waiting.

pub(super) mod report;

use super::client::{ABOUT_ALL, Client, ClientError};
use super::output::{complain, say, say_facts};
use super::{Failure, Outcome, identity};
use crate::config::Config;
use crate::daemon::pidfile::Running;
use crate::exit;
use crate::layout::Layout;
use report::Report;
use serde_json::{Value, json};
use std::time::Duration;

/// What a look at the lock may take. Init scripts look again and again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

daemon_command! {
    /// Tell whether the daemon runs, and what it does.
    "status" Status with pid_file {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// only look whether a process holds the lock, and print nothing: status 0 or 3, or why that is unknown
        #[argh(switch)]
        lock: bool,
    }
}

enum Finding {
    /// It answers. It may have been asked to end, and still deliver what is in flight.
    Up(Report),
    Stopped,
    Unknown(String),
}

impl Status {
    pub fn run(self) -> Outcome {
        let layout = self.layout();
        identity::take_on(&layout, if self.lock { LOCK_TIMEOUT } else { identity::TIMEOUT })?;
        let finding = match Running::find(&layout.pid_file) {
            Ok(None) => Finding::Stopped,
            Ok(Some(_)) if self.lock => return Ok(exit::OK),
            Ok(Some(running)) => look(&running, &layout),
            Err(reason) => Finding::Unknown(reason),
        };
        match &finding {
            Finding::Stopped if self.lock => {}
            finding if self.json && !self.lock => say(finding.to_json()),
            Finding::Up(report) => print(report),
            Finding::Stopped => say("iofog-connector is stopped."),
            Finding::Unknown(reason) => complain(format!("unknown: {reason}")),
        }
        Ok(finding.status())
    }
}

impl Finding {
    fn status(&self) -> u8 {
        match self {
            Self::Up(report) if !report.is_stopping() => exit::OK,
            Self::Stopped => exit::STOPPED,
            Self::Up(_) | Self::Unknown(_) => exit::UNKNOWN,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Up(report) => report.to_json(),
            Self::Stopped => json!({"status": "stopped"}),
            Self::Unknown(reason) => json!({"status": "unknown", "reason": reason}),
        }
    }
}

fn look(running: &Running, layout: &Layout) -> Finding {
    match ask(layout, running.pid()) {
        Ok(report) => Finding::Up(report),
        Err(failure) => {
            let pid_file = layout.pid_file.display();
            Finding::Unknown(format!("{running} holds {pid_file}, but {}", failure.message))
        }
    }
}

/// What the daemon says of itself. A daemon that refuses to say it is running all the same.
fn ask(layout: &Layout, pid: Option<i32>) -> Result<Report, Failure> {
    let config = Config::load(layout)?;
    let client = Client::of(&config)?;
    let answer = match client.post("/api/v2/status", &[("mappingid", "all")], ABOUT_ALL) {
        Ok(answer) => Ok(answer),
        Err(refusal @ ClientError::Refused { .. }) => Err(refusal.to_string()),
        Err(e) => return Err(e.into()),
    };
    Ok(Report::new(&config, pid, client.url(), answer))
}

/// Whether the daemon of these settings says that it has been asked to end.
pub(super) fn is_stopping(layout: &Layout) -> bool {
    ask(layout, None).is_ok_and(|report| report.is_stopping())
}

fn print(report: &Report) {
    let stopping = report.is_stopping();
    say(if stopping { "iofog-connector is stopping." } else { "iofog-connector is up and running." });
    say_facts(&report.facts());
    if !stopping {
        report.warnings().iter().for_each(complain);
    }
}
