//! Prometheus' text format, read strictly: what a scraper would only shrug at fails the test.

use super::{Answer, Controller, PATIENCE, request};
use std::collections::HashMap;

/// The samples of one scrape: by metric, and within by the value of the one label (or "").
pub struct Metrics(HashMap<String, HashMap<String, f64>>);

impl Metrics {
    /// Every metric must have a help line, a type line and all of its samples in one block, and a counter a name that
    /// says so.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "no line end at the end");
        let mut all: HashMap<String, HashMap<String, f64>> = HashMap::new();
        let (mut helped, mut typed) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!all.contains_key(name) && !help.is_empty(), "{line}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!((name, kind == "counter"), (helped.as_str(), name.ends_with("_total")), "{line}");
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                typed = name.to_owned();
                all.insert(name.to_owned(), HashMap::new());
            } else {
                let (name, label, value) = sample(line);
                assert_eq!(name, typed, "a sample in another metric's block: {line}");
                let before = all.get_mut(name).and_then(|series| series.insert(label.to_owned(), value));
                assert!(before.is_none(), "twice: {line}");
            }
        }
        Self(all)
    }

    /// A metric without labels.
    #[track_caller]
    pub fn get(&self, name: &str) -> f64 {
        self.of("", name)
    }

    /// A metric of a mapping.
    #[track_caller]
    pub fn of(&self, id: &str, name: &str) -> f64 {
        let series = self.0.get(&format!("iofog_connector_{name}")).unwrap_or_else(|| panic!("no {name}"));
        *series.get(id).unwrap_or_else(|| panic!("no {name} of {id:?} in {series:?}"))
    }

    /// How many series carry this label.
    pub fn series_of(&self, id: &str) -> usize {
        self.0.values().filter(|series| series.contains_key(id)).count()
    }
}

/// `name{label="value"} number`; the label may be missing.
fn sample(line: &str) -> (&str, &str, f64) {
    let (series, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let number = number.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    let (name, label) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => {
            let label = rest.strip_suffix("\"}").and_then(|rest| rest.split_once("=\"")).map(|(_, value)| value);
            (name, label.unwrap_or_else(|| panic!("a label that does not end: {line}")))
        }
    };
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{line}");
    (name, label, number)
}

impl Controller {
    /// The answer to `GET /metrics`.
    #[track_caller]
    pub fn scrape(&self) -> Answer {
        let mut connection = self.connect().expect("a connection");
        connection.send(&request("GET", "/metrics", &[], "")).expect("a connection that can be written to");
        connection.answer_within(PATIENCE).expect("an answer")
    }

    /// What is in it.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.scrape();
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }
}
