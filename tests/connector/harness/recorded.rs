//! What the original was asked and what it answered (tests/fixtures/golden/README.md).

use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// One recorded exchange.
#[derive(Deserialize)]
pub struct Exchange {
    pub name: String,
    /// The request line.
    pub line: String,
    headers: Option<Vec<String>>,
    #[serde(default)]
    pub body: String,
    pub status: u16,
    /// The answer's keys and their types, in order.
    #[serde(default)]
    pub keys: String,
}

/// All of them, in the order in which they were recorded.
pub fn recorded() -> Vec<Exchange> {
    serde_json::from_str(include_str!("../../fixtures/golden/exchanges.json")).expect("valid fixtures")
}

impl Exchange {
    /// The request's headers.
    pub fn headers(&self) -> Vec<&str> {
        match &self.headers {
            None => vec!["Content-Type: application/x-www-form-urlencoded"],
            Some(headers) => headers.iter().map(String::as_str).collect(),
        }
    }

    /// The method, the path with what earlier requests were answered put in, and the HTTP version.
    pub fn request_line(&self, answers: &HashMap<String, Value>) -> [String; 3] {
        let line = fill_in(&self.line, answers);
        let (method, rest) = line.split_once(' ').expect("a request line");
        let (path, version) = rest.rsplit_once(' ').expect("a request line");
        [method, path, version].map(str::to_owned)
    }

    /// The body with what earlier requests were answered put in.
    pub fn body(&self, answers: &HashMap<String, Value>) -> String {
        fill_in(&self.body, answers)
    }
}

/// Puts what was answered before in the place of `<name key>`.
fn fill_in(text: &str, answers: &HashMap<String, Value>) -> String {
    let mut filled = text.to_owned();
    while let Some((before, (reference, after))) =
        filled.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once('>')?)))
    {
        let (name, key) = reference.split_once(' ').expect("a name and a key");
        let value = answers.get(name).and_then(|answer| answer[key].as_str()).expect("an earlier answer");
        filled = [before, value, after].concat();
    }
    filled
}
