//! What is wrong in a settings file, and where: for readers that walk its objects by hand.
//!
//! serde tells where a value is wrong but not which key it belongs to, so the key in hand is remembered.

use super::SettingsFault;
use crate::json;

/// Some editors put it before a text in UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Where in an object the reader is.
#[derive(Default)]
pub(crate) enum Place {
    /// Between keys.
    #[default]
    Object,
    /// A key, or how it goes with the others.
    Key(String),
    /// A key's value, and what it is to be.
    Value(String, &'static str),
}

/// Turns serde's error into ours: the position apart from the words, and what was expected.
pub(crate) fn fault(text: &[u8], error: &serde_json::Error, place: Place) -> SettingsFault {
    let (line, column) = (error.line(), error.column());
    let problem = json::fault(error);
    let problem = match place {
        _ if text.starts_with(&BYTE_ORDER_MARK) => {
            "the file begins with a byte order mark; save it as UTF-8 without one".to_owned()
        }
        _ if !error.is_data() => {
            let hint = if is_comment(text, line, column) { "; comments are not allowed in this file" } else { "" };
            format!("not valid JSON: {problem}{hint}")
        }
        Place::Object => problem,
        Place::Key(key) => format!("key {key:?}: {problem}"),
        Place::Value(key, expected) => {
            let found = problem.split_once("; expected").map_or(problem.as_str(), |(found, _)| found);
            // What was meant for one must not be shown either.
            let found = if key == "passcode" || key == "proxy" { "something else" } else { found };
            format!("key {key:?}: {found}; expected {expected}")
        }
    };
    // An empty file has no first line for serde.
    SettingsFault { line: line.max(1), column: column.max(1), problem }
}

/// Whether the bytes at this place, or just before it, open a comment.
fn is_comment(text: &[u8], line: usize, column: usize) -> bool {
    let line = text.split(|byte| *byte == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let rest = line.get(column.saturating_sub(1)..).unwrap_or_default();
    rest.starts_with(b"#") || rest.starts_with(b"//") || rest.starts_with(b"/*")
}
