//! `demo`: a Connector, an agent and a web page in one process, so that anyone can see what this is about.
//!
//! Everything is real: the daemon with a settings file, a mapping that is opened over its API as a Controller does,
//! the agent. All of it stands in a temporary folder and on free ports of this machine, and is gone at the end.

mod folder;
mod page;
mod running;

use super::client::{Client, ClientError};
use super::output::{complain, say};
use super::{Failure, Outcome};
use crate::config::Config;
use crate::exit;
use argh::FromArgs;
use folder::Folder;
use running::{RunningAgent, RunningConnector};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// How long the Connector may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that the agent keeps: users that can be served at once.
const CONNECTIONS: u16 = 4;

/// Try it out: a Connector, an agent and a small web page on this machine, until Ctrl-C.
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
pub(super) struct Demo {
    /// with TLS, and a certificate made on the spot
    #[argh(switch)]
    tls: bool,
    /// fetch the page once, print it, and end
    #[argh(switch)]
    once: bool,
}

/// The mapping of the demo.
struct Mapping {
    agents: u16,
    users: u16,
    passcode: String,
}

impl Demo {
    pub fn run(self) -> Outcome {
        let folder = Folder::make()?;
        let ended = self.run_in(&folder);
        if ended.is_err() {
            // The folder is gone in a moment.
            complain(&format!("what the log has:\n{}", folder.log()));
        }
        ended.map(|()| exit::OK)
    }

    fn run_in(&self, folder: &Folder) -> Result<(), Failure> {
        let config = folder.furnish(self.tls)?;
        let client = Client::of(&config).map_err(failed)?;
        let connector = RunningConnector::start(&config.file, folder.path(folder::LOG))?;
        await_answer(&client, &connector)?;
        let mapping = Mapping::open(&client)?;
        let page = page::serve().map_err(|e| Failure::new(exit::SYSTEM, format!("no port for the page: {e}")))?;
        let certificate = self.tls.then(|| folder.path(folder::CERTIFICATE));
        let agent = RunningAgent::start(&mapping, page, certificate.as_deref())?;
        self.explain(folder, &config, &mapping, page);
        if self.once {
            look(&config, &mapping)?;
            client.post("/api/v2/commandline", &[("command", "stop"), ("params", "")]).map_err(failed)?;
        } else {
            say("\nCtrl-C ends it all and leaves nothing behind.");
        }
        connector.wait()?;
        agent.stop()
    }

    /// What is running, and what to try.
    fn explain(&self, folder: &Folder, config: &Config, mapping: &Mapping, page: u16) {
        let Mapping { agents, users, .. } = mapping;
        // curl looks at the name in the certificate.
        let (origin, trust) = match self.tls {
            true => ("https://localhost", format!("--cacert {} ", folder.path(folder::CERTIFICATE).display())),
            false => ("http://127.0.0.1", String::new()),
        };
        let api = format!("{origin}:{}/api/v2", config.api_port);
        say(&format!(
            "Running, all in this process:\n\n\
             \x20 a Connector   users on port {users}, agents on port {agents}, API on port {}\n\
             \x20 an agent      has dialled out to port {agents}; it listens nowhere, so it could be behind NAT\n\
             \x20 a web page    on port {page}, where only the agent needs to reach it\n\n\
             Open in a browser, and the agent fetches it for you:\n\n\
             \x20 {origin}:{users}/\n\n\
             Or try:\n\n\
             \x20 curl {trust}{origin}:{users}/\n\
             \x20 curl {trust}-d mappingid=all {api}/status\n\
             \x20 curl {trust}-d 'mapping={}' {api}/mapping/add\n\n\
             Settings and log are in {}",
            config.api_port,
            Mapping::request(),
            folder.name().display(),
        ));
    }
}

impl Mapping {
    /// Opens it as a Controller does.
    fn open(client: &Client) -> Result<Self, Failure> {
        let request = Self::request().to_string();
        let answer = client.post("/api/v2/mapping/add", &[("mapping", &request)]).map_err(failed)?;
        let odd = || Failure::new(exit::SOFTWARE, format!("the Connector's answer is not understood: {answer}"));
        let port = |key: &str| answer[key].as_u64().and_then(|port| u16::try_from(port).ok()).ok_or_else(odd);
        let passcode = answer["passcode1"].as_str().ok_or_else(odd)?.to_owned();
        Ok(Self { agents: port("port1")?, users: port("port2")?, passcode })
    }

    fn request() -> Value {
        json!({"type": "public", "maxconnections": CONNECTIONS, "heartbeatabsencethreshold": 60000})
    }
}

/// Waits until the API answers.
fn await_answer(client: &Client, connector: &RunningConnector) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.post("/api/v2/status", &[("mappingid", "all")]) {
            Ok(_) => return Ok(()),
            Err(e) if connector.has_ended() || Instant::now() > deadline => return Err(failed(e)),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Fetches the page as a user does, and prints it.
fn look(config: &Config, mapping: &Mapping) -> Result<(), Failure> {
    let user = Client::of(config).map_err(failed)?.at_port(mapping.users);
    let page = user.get("/").map_err(failed)?;
    say(&format!("\nThis came back from {}:\n\n{}", user.url(), page.trim_end()));
    Ok(())
}

fn failed(error: ClientError) -> Failure {
    Failure::new(error.exit_status(), error)
}
