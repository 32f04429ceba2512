//! Prometheus' text format (version 0.0.4), as far as it is used here.

pub mod process;

use std::fmt::{Display, Write};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series of one metric: their labels and numbers.
pub fn block<L: AsRef<str>, V: Display>(
    text: &mut String,
    prefix: &str,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, V)>,
) {
    head(text, prefix, name, help, if name.ends_with("_total") { "counter" } else { "gauge" });
    for (labels, value) in series {
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(text, "{prefix}{name}{} {value}", labels.as_ref());
    }
}

/// What a metric is, before its series.
pub fn head(text: &mut String, prefix: &str, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
}

/// `{name="value",…}`, with what would end a value escaped: `configs.json` may hold any text as an id.
pub fn labels(labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}
