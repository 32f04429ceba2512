//! `demo`: a Connector, an agent and a web page in one process, so that anyone can see what this is about.
//!
//! Everything is real: the daemon with a settings file, a mapping that is opened over its API as a Controller does,
//! the agent. All of it stands in a temporary folder and on free ports of this machine, and is gone at the end.

mod folder;
mod running;

use super::client::{ABOUT_ALL, Client, RESPONSE};
use super::mapping;
use super::output::{complain, say};
use super::{Failure, Outcome};
use crate::config::Config;
use crate::exit;
use argh::FromArgs;
use folder::Folder;
use running::{Running, agent_failed, start_agent, start_connector, start_page};
use serde::Deserialize;
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

/// How long the Connector may take to answer for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the agent keeps: users that can be served at once.
const CONNECTIONS: u16 = 4;
/// The agent may be silent for so long. Milliseconds.
const THRESHOLD: u32 = 60_000;

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

/// The mapping of the demo, as the API tells it.
#[derive(Deserialize)]
struct Mapping {
    /// Where agents connect.
    port1: u16,
    /// Where users connect.
    port2: u16,
    passcode1: String,
}

impl Demo {
    pub fn run(self) -> Outcome {
        let folder = Folder::make()?;
        let ended = self.run_in(&folder);
        if ended.is_err() {
            // The folder is gone in a moment.
            complain(format!("what the log has:\n{}", folder.log()));
        }
        ended.map(|()| exit::OK)
    }

    fn run_in(&self, folder: &Folder) -> Result<(), Failure> {
        let config = folder.furnish(self.tls)?;
        let client = Client::of(&config)?;
        let connector = start_connector(&config.file, folder.path(folder::LOG))?;
        await_answer(&client, &connector)?;
        let mapping = Mapping::open(&client)?;
        let page = start_page().map_err(|e| Failure::new(exit::SYSTEM, format!("no port for the page: {e}")))?;
        let certificate = self.tls.then(|| folder.path(folder::CERTIFICATE));
        let (handle, agent) = start_agent(&mapping, page, certificate.as_deref())?;
        self.explain(folder, &config, &mapping, page);
        if self.once {
            look(&config, &mapping)?;
            client.post("/api/v2/commandline", &[("command", "stop"), ("params", "")], RESPONSE)?;
        } else {
            say("\nCtrl-C ends it all and leaves nothing behind.");
        }
        connector.wait()?;
        handle.stop("the demo is over").map_err(agent_failed)?;
        agent.wait()
    }

    /// What is running, and what to try.
    fn explain(&self, folder: &Folder, config: &Config, mapping: &Mapping, page: u16) {
        let Mapping { port1: agents, port2: users, .. } = mapping;
        // curl looks at the name in the certificate.
        let (origin, trust) = match self.tls {
            true => ("https://localhost", format!("--cacert {} ", folder.path(folder::CERTIFICATE).display())),
            false => ("http://127.0.0.1", String::new()),
        };
        let api = format!("{origin}:{}/api/v2", config.api_port);
        say(format!(
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
            request(),
            folder.name().display(),
        ));
    }
}

impl Mapping {
    /// Opens it as a Controller does.
    fn open(client: &Client) -> Result<Self, Failure> {
        let answer = client.post("/api/v2/mapping/add", &[("mapping", &request().to_string())], mapping::ADDED)?;
        Self::deserialize(&answer).map_err(|e| {
            Failure::new(exit::SOFTWARE, format!("the Connector's answer is not understood: {e}: {answer}"))
        })
    }
}

fn request() -> Value {
    mapping::request(false, CONNECTIONS, THRESHOLD)
}

/// Waits until the API answers.
fn await_answer(client: &Client, connector: &Running) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match client.post("/api/v2/status", &[("mappingid", "all")], ABOUT_ALL) {
            Ok(_) => return Ok(()),
            Err(e) if connector.has_ended() || Instant::now() > deadline => return Err(e.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Fetches the page as a user does, and prints it.
fn look(config: &Config, mapping: &Mapping) -> Result<(), Failure> {
    let user = Client::of(config)?.at_port(mapping.port2);
    let page = user.get("/")?;
    say(format!("\nThis came back from {}:\n\n{}", user.url(), page.trim_end()));
    Ok(())
}
