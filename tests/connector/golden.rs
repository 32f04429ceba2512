//! The original's recorded exchanges, replayed: the same keys and types, but for the differences listed here.

use crate::harness::{Answer, Daemon, Exchange, Mode, PATIENCE, Setup, recorded, request};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// How we answer what the original answered otherwise.
#[derive(Clone, Copy)]
enum Ours {
    /// Refused with this status, in both generations' conventions.
    Refused(u16),
    /// As that other recorded request was answered.
    Like(&'static str),
}

use Ours::{Like, Refused};

/// The keys of every refusal.
const REFUSAL: &str = "status:string error:string errormessage:string timestamp:number";
const ADDED: &str = "02-add-public-urlencoded";

/// Every deliberate difference, with its reason.
const DIFFERENCES: &[(&str, Ours, &str)] = &[
    ("07-add-body-json-without-mapping-prefix", Like(ADDED), "the documents show it so"),
    ("13-status-unknown", Refused(404), "a status code, as 1.3.0 has it"),
    ("14-status-noparam", Refused(400), "a status code, and the field is named"),
    ("15-status-emptybody", Refused(400), "a status code, and the field is named"),
    ("16-status-empty-id", Refused(404), "a status code"),
    ("21-remove-again", Refused(404), "a status code"),
    ("22-remove-unknown", Refused(404), "a status code"),
    ("23-remove-missing-param", Refused(400), "an answer instead of a closed connection"),
    ("24-remove-empty-body", Refused(400), "an answer instead of a closed connection"),
    ("32b-commandline-params-dup", Refused(400), "a status code"),
    ("33-commandline-nocommand", Refused(400), "a status code, and the field is named"),
    ("44-direct-request-badkey", Refused(404), "a status code"),
    ("49-direct-request-badport", Refused(400), "a status code, and the field is named"),
    ("50-direct-request-missing", Refused(400), "an answer instead of a closed connection"),
    ("54-direct-remove-again", Refused(404), "a status code"),
    ("55-direct-remove-missing", Refused(400), "an answer instead of a closed connection"),
    ("56-direct-request-after-remove", Refused(404), "a status code"),
    ("66-ct-uppercase", Like(ADDED), "media types know no case"),
    ("70-malformed-json", Refused(400), "a status code"),
    ("71-not-json", Refused(400), "a status code"),
    ("72-json-array", Refused(400), "a status code"),
    ("73-empty-mapping", Refused(400), "a status code"),
    ("74-missing-type", Refused(400), "a status code, and the field is named"),
    ("75-missing-maxconnections", Refused(400), "a status code, and the field is named"),
    ("76-missing-hb", Refused(400), "a status code, and the field is named"),
    ("77-wrong-type", Refused(400), "a status code"),
    ("78-type-number", Refused(400), "a status code"),
    ("79-maxconnections-string", Refused(400), "a status code"),
    ("80-maxconnections-float", Refused(400), "connections come whole"),
    ("81-maxconnections-negative", Refused(400), "it made a mapping that nobody can use"),
    ("82-maxconnections-huge", Refused(400), "it was cut to 32 bits"),
    ("84-private-missing", Refused(400), "a status code, and the field is named"),
    ("85-no-mapping-param", Refused(400), "an answer instead of a closed connection"),
    ("86-duplicate-mapping-param", Refused(400), "a status code; the first one counts, as ever"),
    ("87-bad-percent", Refused(400), "an answer instead of a closed connection"),
    ("88-type-uppercase", Refused(400), "a status code"),
];

/// The keys of a JSON object in the order in which they came.
struct Keys(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    keys.push(entry);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn send(daemon: &Daemon, exchange: &Exchange, answers: &HashMap<String, Value>) -> Answer {
    let [method, path, version] = exchange.request_line(answers);
    let text = request(&method, &path, &exchange.headers(), &exchange.body(answers));
    let text = text.replacen("HTTP/1.1", &version, 1);
    let mut connection = daemon.controller().connect().expect("a connection");
    connection.send(&text).expect("a connection that can be written to");
    let answer = if method == "HEAD" { connection.head_within(PATIENCE) } else { connection.answer_within(PATIENCE) };
    answer.unwrap_or_else(|error| panic!("{}: {error}", exchange.name))
}

/// `recorded` must all be there, in that order, with those types; more may stand behind any of them.
fn expect_keys(name: &str, recorded: &str, answer: &Answer) {
    let keys: Keys = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{name}: {error} in {answer:?}"));
    let mut keys = keys.0.iter().map(|(key, value)| format!("{key}:{}", kind(value)));
    for expected in recorded.split(' ') {
        assert!(keys.any(|key| key == expected), "{name}: no {expected} in its place in {}", answer.body);
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        Value::Null | Value::Array(_) | Value::Object(_) => "other",
    }
}

fn check(exchange: &Exchange, all: &[Exchange], answer: &Answer) {
    let name = &exchange.name;
    let ours = DIFFERENCES.iter().find(|(other, ..)| other == name).map(|(_, ours, _)| *ours);
    let (status, keys) = match ours {
        Some(Refused(status)) => (status, REFUSAL),
        Some(Like(other)) => {
            let other = all.iter().find(|exchange| exchange.name == other).expect("a recorded exchange");
            (other.status, other.keys.as_str())
        }
        None => (exchange.status, exchange.keys.as_str()),
    };
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    if status == 200 {
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}: {answer:?}");
    }
    if !keys.is_empty() {
        expect_keys(name, keys, answer);
    }
    // The original's had a line of text, or nothing at all.
    if status >= 400 && !answer.body.is_empty() {
        expect_keys(name, REFUSAL, answer);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}: {answer:?}");
    }
    assert_eq!(answer.header("server"), Some("iofog-connector"), "{name}: {answer:?}");
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{name}: {answer:?}");
}

#[test]
fn recorded_exchanges_are_answered_alike() {
    let exchanges = recorded();
    for (name, ..) in DIFFERENCES {
        assert!(exchanges.iter().any(|exchange| exchange.name == *name), "{name} was never recorded");
    }
    let daemon = Setup::new(Mode::Plain).start();
    let mut answers = HashMap::new();
    for exchange in &exchanges {
        let answer = send(&daemon, exchange, &answers);
        check(exchange, &exchanges, &answer);
        answers.insert(exchange.name.clone(), serde_json::from_str(&answer.body).unwrap_or(Value::Null));
    }
}
