//! `mapping list|add|remove|show`: mappings of the running daemon, through its API.

mod show;

use super::client::{Client, Expected};
use super::output::{say, say_facts, say_table};
use super::{Failure, Outcome, identity};
use crate::agent::settings::CONNECTIONS;
use crate::config::Config;
use crate::exit;
use crate::layout::Layout;
use argh::FromArgs;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Connections of a public mapping, if none are named ...
const PUBLIC_CONNECTIONS: u16 = 60;
/// ... and of either side of a private one: as many as our agents keep.
const PRIVATE_CONNECTIONS: u16 = CONNECTIONS;
/// An agent may be silent for so long, if no time is named. Milliseconds.
const THRESHOLD: u32 = 200_000;

/// What is in the daemon's answers: to `list`,
const LIST: Expected = Expected("mappings", Value::is_array);
/// to `add`,
pub(super) const ADDED: Expected = Expected("port1", Value::is_u64);
/// to `show` and `remove`.
const ABOUT_ONE: Expected = Expected("id", Value::is_string);

/// List, add, remove or show mappings of the running daemon.
#[derive(FromArgs)]
#[argh(subcommand, name = "mapping")]
pub(super) struct Mapping {
    #[argh(subcommand)]
    action: Action,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Action {
    List(List),
    Add(Add),
    Remove(Remove),
    Show(Show),
}

daemon_command! {
    /// List all mappings.
    "list" List {
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

daemon_command! {
    /// Open a mapping on two free ports, or on given ones; prints them and the passcodes.
    "add" Add {
        /// agents on both ports, instead of agents on the first and users on the second
        #[argh(switch)]
        private: bool,
        /// what people call it; stands for the id in every command
        #[argh(option)]
        name: Option<String>,
        /// connections of agents at most, at each port (default: 60, private: 10)
        #[argh(option, arg_name = "number")]
        connections: Option<u16>,
        /// milliseconds that an agent may be silent (default: 200000; 0: for ever)
        #[argh(option, default = "THRESHOLD", arg_name = "ms")]
        threshold: u32,
        /// this very port for agents, one of the settings' `ports`
        #[argh(option, arg_name = "port")]
        port1: Option<u16>,
        /// this very port for users, or for the agents of the other side
        #[argh(option, arg_name = "port")]
        port2: Option<u16>,
        /// how users connect: tls (default outside dev mode) or plain
        #[argh(option, arg_name = "tls|plain")]
        users: Option<String>,
        /// address or range that users may come from; may be repeated (default: everybody)
        #[argh(option, arg_name = "range")]
        allow: Vec<String>,
        /// begin each session with a PROXY protocol header that tells the service the user's address: v1 or v2
        #[argh(option, arg_name = "v1|v2")]
        proxy_protocol: Option<String>,
        /// sessions of one address at once (default: any number)
        #[argh(option, arg_name = "number")]
        max_users: Option<u64>,
        /// seconds that a user waits for a free agent (default: 5)
        #[argh(option, arg_name = "seconds")]
        wait_time: Option<u64>,
        /// seconds after which a session is ended in which nothing has moved (default: 0, never)
        #[argh(option, arg_name = "seconds")]
        idle_timeout: Option<u64>,
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

daemon_command! {
    /// Close mappings and every connection that goes through them.
    "remove" Remove {
        /// print JSON, a line a mapping
        #[argh(switch)]
        json: bool,
        /// ids or names of mappings
        #[argh(positional, arg_name = "id")]
        ids: Vec<String>,
    }
}

daemon_command! {
    /// Show the state of one mapping.
    "show" Show {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// the id or name of a mapping
        #[argh(positional)]
        id: String,
    }
}

impl Mapping {
    pub fn run(self) -> Outcome {
        match self.action {
            Action::List(List { config, state, json }) => {
                let answer = connect(config, state)?.post("/api/v2/mapping/list", &[], LIST)?;
                print(&answer, json, print_list);
            }
            Action::Add(add) => {
                let (request, private) = (add.request().to_string(), add.private);
                let client = connect(add.config, add.state)?;
                let answer = client.post("/api/v2/mapping/add", &[("mapping", &request)], ADDED)?;
                print(&answer, add.json, |answer| print_added(answer, private));
            }
            Action::Remove(remove) => return remove.run(),
            Action::Show(Show { config, state, json, id }) => {
                let answer = connect(config, state)?.post("/api/v2/status", &[("mappingid", &id)], ABOUT_ONE)?;
                print(&answer, json, |answer| say_facts(&show::facts(answer)));
            }
        }
        Ok(exit::OK)
    }
}

fn connect(settings: PathBuf, state: Option<PathBuf>) -> Result<Client, Failure> {
    let layout = Layout::new(settings, state, None);
    identity::take_on(&layout, identity::TIMEOUT)?;
    Ok(Client::of(&Config::load(&layout)?)?)
}

fn print(answer: &Value, json: bool, print_for_people: impl FnOnce(&Value)) {
    if json { say(answer) } else { print_for_people(answer) }
}

fn print_list(answer: &Value) {
    let columns = ["id", "name", "type", "port1", "state1", "port2", "state2", "agents", "users"];
    let mappings = answer["mappings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = |mapping: &Value, column| match column {
        "name" => plain(&mapping["options"]["name"]),
        _ => plain(&mapping[column]),
    };
    let rows = mappings.iter().map(|mapping| columns.map(|column| cell(mapping, column)).to_vec());
    say_table(&std::iter::once(columns.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>());
}

fn print_added(answer: &Value, private: bool) {
    let [first, second] = if private { ["agents 1", "agents 2"] } else { ["agents", "users"] };
    let port = |name: &str| format!("port {}", plain(&answer[name]));
    let mut facts = vec![("id", plain(&answer["id"])), (first, port("port1")), (second, port("port2"))];
    let passcodes = [("passcode 1", "passcode1"), ("passcode 2", "passcode2")];
    facts.extend(passcodes.map(|(name, key)| (name, plain(&answer[key]))).into_iter().filter(|(_, it)| !it.is_empty()));
    say_facts(&facts);
}

impl Add {
    fn request(&self) -> Value {
        let fallback = if self.private { PRIVATE_CONNECTIONS } else { PUBLIC_CONNECTIONS };
        let mut request = request(self.private, self.connections.unwrap_or(fallback), self.threshold);
        let options = [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("port1", self.port1.map(|port| json!(port))),
            ("port2", self.port2.map(|port| json!(port))),
            ("users", self.users.as_ref().map(|transport| json!(transport))),
            ("allow", (!self.allow.is_empty()).then(|| json!(self.allow))),
            ("proxyprotocol", self.proxy_protocol.as_ref().map(|version| json!(version))),
            ("maxusers", self.max_users.map(|most| json!(most))),
            ("waittime", self.wait_time.map(|seconds| json!(seconds))),
            ("idletimeout", self.idle_timeout.map(|seconds| json!(seconds))),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                request[key] = value;
            }
        }
        request
    }
}

/// As Controllers ask for a mapping (docs/protocol.md, "Control API").
pub(super) fn request(private: bool, connections: u16, threshold: u32) -> Value {
    if private {
        json!({
            "type": "private",
            "maxconnectionsport1": connections,
            "maxconnectionsport2": connections,
            "heartbeatabsencethresholdport1": threshold,
            "heartbeatabsencethresholdport2": threshold,
        })
    } else {
        json!({"type": "public", "maxconnections": connections, "heartbeatabsencethreshold": threshold})
    }
}

impl Remove {
    fn run(self) -> Outcome {
        if self.ids.is_empty() {
            return Err(Failure::new(exit::USAGE, "mapping remove: expected the id or name of a mapping"));
        }
        let client = connect(self.config, self.state)?;
        for id in &self.ids {
            let answer = client.post("/api/v2/mapping/remove", &[("mappingid", id)], ABOUT_ONE).map_err(|e| {
                let failure = Failure::from(e);
                Failure { message: format!("{id}: {}", failure.message), ..failure }
            })?;
            print(&answer, self.json, |_| say(format!("removed {id}")));
        }
        Ok(exit::OK)
    }
}

/// Text without quotes, nothing for what is not there, everything else as JSON has it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
