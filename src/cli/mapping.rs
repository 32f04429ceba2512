//! `mapping list|add|remove|show`: mappings of the running daemon, through its API.

use super::client::Client;
use super::output::{say, say_facts, say_table};
use super::{Failure, Outcome, identity};
use crate::config::Config;
use crate::exit;
use crate::layout::Layout;
use argh::FromArgs;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Connections of a public mapping, if none are named ...
const PUBLIC_CONNECTIONS: u16 = 60;
/// ... and of either side of a private one.
const PRIVATE_CONNECTIONS: u16 = 1;
/// An agent may be silent for so long, if no time is named. Milliseconds.
const THRESHOLD: u32 = 200_000;

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
    /// Open a mapping on two free ports; prints them and the passcodes.
    "add" Add {
        /// agents on both ports, instead of agents on the first and users on the second
        #[argh(switch)]
        private: bool,
        /// connections of agents at most, at each port (default: 60, private: 1)
        #[argh(option, arg_name = "number")]
        connections: Option<u16>,
        /// milliseconds that an agent may be silent (default: 200000; 0: for ever)
        #[argh(option, default = "THRESHOLD", arg_name = "ms")]
        threshold: u32,
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
        /// ids of mappings
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
        /// the id of a mapping
        #[argh(positional)]
        id: String,
    }
}

impl Mapping {
    pub fn run(self) -> Outcome {
        match self.action {
            Action::List(List { config, state, json }) => {
                let answer = connect(config, state)?.post("/api/v2/mapping/list", &[])?;
                print(&answer, json, print_list);
            }
            Action::Add(add) => {
                let (request, private) = (add.request().to_string(), add.private);
                let answer = connect(add.config, add.state)?.post("/api/v2/mapping/add", &[("mapping", &request)])?;
                print(&answer, add.json, |answer| print_added(answer, private));
            }
            Action::Remove(remove) => return remove.run(),
            Action::Show(Show { config, state, json, id }) => {
                let answer = connect(config, state)?.post("/api/v2/status", &[("mappingid", &id)])?;
                print(&answer, json, print_state);
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
    let columns = ["id", "type", "port1", "state1", "port2", "state2", "agents", "users"];
    let mappings = answer["mappings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = mappings.iter().map(|mapping| columns.map(|column| plain(&mapping[column])).to_vec());
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

fn print_state(answer: &Value) {
    let fields = answer.as_object().into_iter().flatten().filter(|(name, _)| *name != "timestamp");
    say_facts(&fields.map(|(name, value)| (name.as_str(), plain(value))).collect::<Vec<_>>());
}

impl Add {
    fn request(&self) -> Value {
        let fallback = if self.private { PRIVATE_CONNECTIONS } else { PUBLIC_CONNECTIONS };
        request(self.private, self.connections.unwrap_or(fallback), self.threshold)
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
            return Err(Failure::new(exit::USAGE, "mapping remove: expected the id of a mapping"));
        }
        let client = connect(self.config, self.state)?;
        for id in &self.ids {
            let answer = client.post("/api/v2/mapping/remove", &[("mappingid", id)]).map_err(|e| {
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
