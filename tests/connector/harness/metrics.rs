//! Prometheus' text format, read strictly: what a scraper would only shrug at fails the test.

use super::{Answer, Controller, PATIENCE, request};
use std::collections::HashMap;

/// The samples of one scrape: by metric, and within by the values of its labels, with commas between them (or "").
pub struct Metrics(HashMap<String, HashMap<String, f64>>);

impl Metrics {
    /// Every metric must have a help line, a type line and all of its samples in one block, and a counter a name that
    /// says so.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "no line end at the end");
        let mut all: HashMap<String, HashMap<String, f64>> = HashMap::new();
        let (mut helped, mut typed, mut is_histogram) = (String::new(), String::new(), false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!all.contains_key(name) && !help.is_empty(), "{line}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!((name, kind == "counter"), (helped.as_str(), name.ends_with("_total")), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                is_histogram = kind == "histogram";
                typed = name.to_owned();
                all.insert(name.to_owned(), HashMap::new());
            } else {
                let (name, label, value) = sample(line);
                let part = name.strip_prefix(&typed).unwrap_or_else(|| panic!("in another metric's block: {line}"));
                let is_known =
                    if is_histogram { ["_bucket", "_sum", "_count"].contains(&part) } else { part.is_empty() };
                assert!(is_known, "{line}");
                let before = all.entry(name.to_owned()).or_default().insert(label, value);
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

    /// A metric with these values of its labels, the id of a mapping say.
    #[track_caller]
    pub fn of(&self, labels: &str, name: &str) -> f64 {
        let series = self.series(&format!("iofog_connector_{name}"));
        *series.get(labels).unwrap_or_else(|| panic!("no {name} of {labels:?} in {series:?}"))
    }

    /// The sum over all labels.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        self.series(&format!("iofog_connector_{name}")).values().sum()
    }

    /// One of those that all processes have.
    #[track_caller]
    pub fn of_process(&self, name: &str) -> f64 {
        self.series(&format!("process_{name}"))[""]
    }

    #[track_caller]
    fn series(&self, name: &str) -> &HashMap<String, f64> {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// How many series carry this label.
    pub fn series_of(&self, id: &str) -> usize {
        let is_of = |labels: &str| labels.split(',').next() == Some(id);
        self.0.values().map(|series| series.keys().filter(|labels| is_of(labels)).count()).sum()
    }
}

/// `name{label="value",…} number`; there may be no label. No value of a test has a comma.
fn sample(line: &str) -> (&str, String, f64) {
    let (series, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let number = number.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    let value = |label: &str| label.strip_suffix('"')?.split_once("=\"").map(|(_, value)| value.to_owned());
    let (name, label) = match series.split_once('{') {
        None => (series, String::new()),
        Some((name, rest)) => {
            let labels = rest.strip_suffix('}').and_then(|rest| rest.split(',').map(value).collect::<Option<Vec<_>>>());
            (name, labels.unwrap_or_else(|| panic!("a label that does not end: {line}")).join(","))
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
