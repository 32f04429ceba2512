//! What a Controller changes, and what it knows to be there.

use crate::harness::{Controller, Random, form};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Mappings by their names, each with what whoever added it was told: id, ports and passcodes.
pub type Mappings = BTreeMap<String, Value>;

/// A request to add or remove a mapping.
#[derive(Clone, Debug)]
pub enum Change {
    Add(String),
    Remove(String),
}

/// What a Controller does with mappings of its own.
pub struct Changes {
    prefix: &'static str,
    made: u64,
    random: Random,
    /// What it was told.
    pub known: Mappings,
    /// At most so many at a time.
    most: usize,
}

impl Changes {
    pub fn new(prefix: &'static str, most: usize, random: Random) -> Self {
        Self { prefix, made: 0, random, known: Mappings::new(), most }
    }

    /// Some change that can be made.
    pub fn next(&mut self) -> Change {
        let count = self.known.len();
        if count > 0 && (count >= self.most || self.random.below(2) == 0) {
            let names: Vec<_> = self.known.keys().collect();
            return Change::Remove((*self.random.any(&names)).clone());
        }
        self.made += 1;
        Change::Add(format!("{}{}", self.prefix, self.made))
    }

    /// It was acknowledged.
    pub fn note(&mut self, change: Change, answer: Value) {
        match change {
            Change::Add(name) => drop(self.known.insert(name, answer)),
            Change::Remove(name) => drop(self.known.remove(&name)),
        }
    }
}

impl Change {
    /// Path and form of the request.
    pub fn request(&self) -> (&'static str, String) {
        match self {
            Self::Add(name) => {
                let mapping =
                    json!({"type": "public", "maxconnections": 1, "heartbeatabsencethreshold": 0, "name": name});
                ("/api/v2/mapping/add", form("mapping", &mapping.to_string()))
            }
            Self::Remove(name) => ("/api/v2/mapping/remove", form("mappingid", name)),
        }
    }

    /// Asks for it. `None`: there was no answer. An answer must say that it was done.
    pub fn ask(&self, controller: &Controller) -> Option<Value> {
        let (path, form) = self.request();
        let answer = controller.try_post(path, &form).ok()?;
        assert_eq!(answer.status, 200, "{self:?}: {answer:?}");
        Some(answer.json())
    }

    /// Whether `there` is what `known` becomes by this.
    pub fn has_happened(&self, there: &Mappings) -> bool {
        match self {
            Self::Add(name) => there.contains_key(name),
            Self::Remove(name) => !there.contains_key(name),
        }
    }
}

/// What is in a file, as those who added it were told. A missing file holds nothing.
#[track_caller]
pub fn stored(file: &Path) -> Mappings {
    let Ok(text) = fs::read(file) else { return Mappings::new() };
    let content: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let of_one = |record: &Value| {
        let told = json!({"id": record["id"], "port1": record["port1"], "port2": record["port2"],
            "passcode1": record["passcodeport1"], "passcode2": record["passcodeport2"]});
        (record["name"].as_str().expect("all have names").to_owned(), told)
    };
    content["mappings"].as_array().expect("a list").iter().map(of_one).collect()
}

/// The same of an answer to adding it.
pub fn told(answer: &Value) -> Value {
    let keys = ["id", "port1", "port2", "passcode1", "passcode2"];
    keys.iter().map(|key| ((*key).to_owned(), answer[*key].clone())).collect()
}

/// Names and ids of what the daemon has.
#[track_caller]
pub fn listed(controller: &Controller) -> BTreeMap<String, Value> {
    let list = controller.post("/api/v2/mapping/list", "").json();
    let of_one = |entry: &Value| (entry["options"]["name"].as_str().expect("a name").to_owned(), entry["id"].clone());
    list["mappings"].as_array().unwrap_or_else(|| panic!("{list}")).iter().map(of_one).collect()
}

/// The same of what was stored.
pub fn ids(mappings: &Mappings) -> BTreeMap<String, Value> {
    mappings.iter().map(|(name, told)| (name.clone(), told["id"].clone())).collect()
}
