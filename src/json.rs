//! What is wrong with a JSON text, in words for people: the parser's own speak of its types.

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Error, Map, Value};
use std::fmt;

/// Reads an object in which each key is there once. JSON leaves it open which of two values counts, and who reads the
/// text besides us may take the other one.
pub fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    deserializer.deserialize_map(Distinct)
}

/// As much of what somebody else wrote as helps to recognize it.
pub fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown = String::new();
    for character in text.chars().take(SHOWN) {
        // JSON leaves some control characters as they are.
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

struct Distinct;

impl<'de> Visitor<'de> for Distinct {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("the key \"{}\" is given twice", shown(&key))));
            }
            fields.insert(key, value);
        }
        Ok(fields)
    }
}

/// The place and the fault: `line 1, column 12: found a list; expected an object`.
pub fn explained(error: &Error) -> String {
    format!("line {}, column {}: {}", error.line(), error.column(), fault(error))
}

/// The fault alone.
pub fn fault(error: &Error) -> String {
    let words = error.to_string();
    let words = words.rfind(" at line ").map_or(words.as_str(), |at| &words[..at]);
    if error.is_eof() {
        return "the text ends too early".to_owned();
    }
    let kinds = ["invalid type: ", "invalid value: "];
    if let Some(found) = kinds.iter().find_map(|kind| words.strip_prefix(kind)) {
        return match found.split_once(", expected ") {
            Some((found, expected)) => format!("found {}; expected {}", named(found), named(expected)),
            None => format!("found {}", named(found)),
        };
    }
    if let Some(unknown) = words.strip_prefix("unknown field ") {
        let name = unknown.split_once(", expected ").map_or(unknown, |(name, _)| name);
        return format!("the key \"{}\" is not known to this version", shown(name.trim_matches('`')));
    }
    let pairs = [("missing field ", "the key", " is missing"), ("duplicate field ", "the key", " is given twice")];
    for (prefix, before, behind) in pairs {
        if let Some(name) = words.strip_prefix(prefix) {
            return format!("{before} {}{behind}", name.replace('`', "\""));
        }
    }
    match words {
        // A list where an object is expected is read as its values.
        _ if words.starts_with("invalid length ") => {
            let expected = words.split_once(", expected ").map_or("something else", |(_, expected)| expected);
            format!("found a list; expected {expected}")
        }
        "trailing characters" => "there is more text behind the end".to_owned(),
        "trailing comma" => "there is a comma behind the last value".to_owned(),
        "key must be a string" => "a key in double quotes is expected".to_owned(),
        "expected value" => "a value is expected".to_owned(),
        "invalid escape" => "in a string a backslash is written \\\\".to_owned(),
        "invalid number" => "a number is malformed".to_owned(),
        "expected ident" => "true, false or null is expected".to_owned(),
        _ if words.starts_with("control character") => {
            "a control character or the end of the line stands in a string".to_owned()
        }
        words => words.replace('`', "\""),
    }
}

/// A value, or a type of the parser's.
fn named(what: &str) -> String {
    match what {
        "map" | "a map" => "an object".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u16" => "a whole number, 0 to 65535".to_owned(),
        "u32" | "i32" | "u64" | "i64" | "usize" => "a whole number".to_owned(),
        _ => {
            let kinds = ["integer ", "floating point ", "boolean ", "string "];
            let value = kinds.iter().find_map(|kind| what.strip_prefix(kind)).unwrap_or(what);
            value.trim_matches('`').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(expecting = "an object like {\"port\": 1}", deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        port: u16,
    }

    #[test]
    fn the_parsers_words_are_put_into_ours() {
        for (text, expected) in [
            ("[]", "line 1, column 2: found a list; expected an object like {\"port\": 1}"),
            ("\"port\"", "line 1, column 6: found \"port\"; expected an object like {\"port\": 1}"),
            ("{}", "line 1, column 2: the key \"port\" is missing"),
            ("{\"port\":1,\"port\":2}", "line 1, column 16: the key \"port\" is given twice"),
            ("{\"ports\":1}", "line 1, column 8: the key \"ports\" is not known to this version"),
            ("{\"port\":", "line 1, column 8: the text ends too early"),
            ("{\"port\":{}}", "line 1, column 8: found an object; expected a whole number, 0 to 65535"),
            ("{\"port\":1.5}", "line 1, column 11: found 1.5; expected a whole number, 0 to 65535"),
            ("{\"port\":true}", "line 1, column 12: found true; expected a whole number, 0 to 65535"),
            ("{\"port\":70000}", "line 1, column 13: found 70000; expected a whole number, 0 to 65535"),
            ("{\"port\":1,}", "line 1, column 11: there is a comma behind the last value"),
            ("{\"port\":1} x", "line 1, column 12: there is more text behind the end"),
            ("{port:1}", "line 1, column 2: a key in double quotes is expected"),
            ("{\"port\" 1}", "line 1, column 9: expected \":\""),
            ("x", "line 1, column 1: a value is expected"),
            ("{\"port\":01}", "line 1, column 10: a number is malformed"),
            (r#"{"a\q":1}"#, r"line 1, column 5: in a string a backslash is written \\"),
            ("{\"po\trt\":1}", "line 1, column 5: a control character or the end of the line stands in a string"),
        ] {
            let error = serde_json::from_str::<Sample>(text).unwrap_err();
            assert_eq!(explained(&error), expected, "{text}");
        }
    }
}
