//! `mapping list|add|remove|show`: mappings of the running daemon, through its API.

use super::client::{Client, ClientError};
use super::output::{say, say_facts, say_table};
use super::{Failure, Outcome, default_settings, identity};
use crate::config::Config;
use crate::exit;
use crate::layout::Layout;
use argh::FromArgs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Connections of a public mapping, unless it is told otherwise ...
const PUBLIC_CONNECTIONS: u16 = 60;
/// ... and of either side of a private one.
const PRIVATE_CONNECTIONS: u16 = 1;
/// An agent may be silent for so long, unless it is told otherwise. Milliseconds.
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

/// List all mappings.
#[derive(FromArgs)]
#[argh(subcommand, name = "list")]
struct List {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Open a mapping on two free ports; prints them and the passcodes.
#[derive(FromArgs)]
#[argh(subcommand, name = "add")]
struct Add {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
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

/// Close mappings and every connection that goes through them.
#[derive(FromArgs)]
#[argh(subcommand, name = "remove")]
struct Remove {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// print JSON, a line a mapping
    #[argh(switch)]
    json: bool,
    /// ids of mappings
    #[argh(positional, arg_name = "id")]
    ids: Vec<String>,
}

/// Show the state of one mapping.
#[derive(FromArgs)]
#[argh(subcommand, name = "show")]
struct Show {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "default_settings()", arg_name = "file")]
    config: PathBuf,
    /// state folder, if the daemon was started with one of its own
    #[argh(option, arg_name = "folder")]
    state: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// the id of a mapping
    #[argh(positional)]
    id: String,
}

impl Mapping {
    pub fn run(self) -> Outcome {
        match self.action {
            Action::List(list) => list.run(),
            Action::Add(add) => add.run(),
            Action::Remove(remove) => remove.run(),
            Action::Show(show) => show.run(),
        }
    }
}

fn connect(settings: &Path, state: Option<&Path>) -> Result<Client, Failure> {
    let layout = Layout::new(settings.to_owned(), state.map(Path::to_owned), None);
    identity::take_on(&layout, identity::PATIENCE)?;
    let config = Config::load(&layout).map_err(|e| Failure::new(exit::CONFIG, e))?;
    Client::of(&config).map_err(failed)
}

fn failed(error: ClientError) -> Failure {
    Failure::new(error.exit_status(), error)
}

impl List {
    fn run(self) -> Outcome {
        let answer = connect(&self.config, self.state.as_deref())?.post("/api/v2/mapping/list", &[]).map_err(failed)?;
        if self.json {
            say(&answer.to_string());
            return Ok(exit::OK);
        }
        let columns = ["id", "type", "port1", "state1", "port2", "state2", "agents", "users"];
        let mut rows = vec![columns.map(str::to_owned).to_vec()];
        let mappings = answer["mappings"].as_array().map(Vec::as_slice).unwrap_or_default();
        rows.extend(mappings.iter().map(|mapping| columns.map(|column| plain(&mapping[column])).to_vec()));
        say_table(&rows);
        Ok(exit::OK)
    }
}

impl Add {
    fn run(self) -> Outcome {
        let answer =
            connect(&self.config, self.state.as_deref())?.post("/api/v2/mapping/add", &[("mapping", &self.request())]);
        let answer = answer.map_err(failed)?;
        if self.json {
            say(&answer.to_string());
            return Ok(exit::OK);
        }
        let [first, second] = if self.private { ["agents 1", "agents 2"] } else { ["agents", "users"] };
        let port = |name: &str| format!("port {}", plain(&answer[name]));
        let mut facts = vec![("id", plain(&answer["id"])), (first, port("port1")), (second, port("port2"))];
        let codes =
            [("passcode 1", "passcode1"), ("passcode 2", "passcode2")].map(|(it, key)| (it, plain(&answer[key])));
        facts.extend(codes.into_iter().filter(|(_, code)| !code.is_empty()));
        say_facts(&facts);
        Ok(exit::OK)
    }

    /// As Controllers ask for it (docs/protocol.md, "Control API").
    fn request(&self) -> String {
        let fallback = if self.private { PRIVATE_CONNECTIONS } else { PUBLIC_CONNECTIONS };
        let (connections, threshold) = (self.connections.unwrap_or(fallback), self.threshold);
        let mapping = if self.private {
            json!({
                "type": "private",
                "maxconnectionsport1": connections,
                "maxconnectionsport2": connections,
                "heartbeatabsencethresholdport1": threshold,
                "heartbeatabsencethresholdport2": threshold,
            })
        } else {
            json!({"type": "public", "maxconnections": connections, "heartbeatabsencethreshold": threshold})
        };
        mapping.to_string()
    }
}

impl Remove {
    fn run(self) -> Outcome {
        if self.ids.is_empty() {
            return Err(Failure::new(exit::USAGE, "mapping remove: expected the id of a mapping"));
        }
        let client = connect(&self.config, self.state.as_deref())?;
        for id in &self.ids {
            let answer = client.post("/api/v2/mapping/remove", &[("mappingid", id)]);
            let answer = answer.map_err(|e| Failure::new(e.exit_status(), format!("{id}: {e}")))?;
            if self.json {
                say(&answer.to_string());
            } else {
                say(&format!("removed {id}"));
            }
        }
        Ok(exit::OK)
    }
}

impl Show {
    fn run(self) -> Outcome {
        let answer = connect(&self.config, self.state.as_deref())?
            .post("/api/v2/status", &[("mappingid", &self.id)])
            .map_err(failed)?;
        if self.json {
            say(&answer.to_string());
            return Ok(exit::OK);
        }
        let fields = answer.as_object().into_iter().flatten();
        let shown = fields.filter(|(name, _)| *name != "timestamp");
        say_facts(&shown.map(|(name, value)| (name.as_str(), plain(value))).collect::<Vec<_>>());
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
