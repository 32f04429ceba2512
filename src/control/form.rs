//! Form fields of a request's body.

use crate::json;
use crate::mapping::FieldError;
use form_urlencoded::parse;
use serde_json::Value;
use std::borrow::Cow;
use thiserror::Error;

/// A body of `application/x-www-form-urlencoded`. Of a field that is there twice, the first counts.
pub(crate) struct Form<'a>(pub &'a [u8]);

impl<'a> Form<'a> {
    /// The field `name`, decoded.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        parse(self.0).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The field `name`, which must be there.
    pub fn require(&self, name: &str, expected: &str) -> Result<Cow<'a, str>, FieldError> {
        self.get(name).ok_or_else(|| FieldError::missing(name, expected))
    }

    /// The JSON of mapping/add.
    ///
    /// It comes in three ways: `mapping=` percent-encoded, `mapping=` and the JSON as it is (so that an
    /// `&` or a `%` in it means itself), or as the bare JSON object. Text behind a raw object is
    /// ignored, as ever.
    pub fn mapping(&self) -> Result<Value, MappingError> {
        if self.0.trim_ascii_start().starts_with(b"{") {
            return first_value(self.0);
        }
        let Some(raw) = self.rest_of("mapping") else {
            return Err(MappingError::Missing);
        };
        if raw.trim_ascii_start().starts_with(b"{") {
            match first_value(raw) {
                Err(MappingError::Json(_)) => {}
                read => return read,
            }
        }
        let decoded = self.get("mapping").unwrap_or_default();
        first_value(decoded.as_bytes())
    }

    /// The bytes behind the first `name=`, to the end of the body.
    fn rest_of(&self, name: &str) -> Option<&'a [u8]> {
        let mut at = 0;
        for field in self.0.split(|byte| *byte == b'&') {
            if field.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
                return Some(&self.0[at + name.len() + 1..]);
            }
            at += field.len() + 1;
        }
        None
    }
}

/// An object in which a key is given twice is an error: who is asked to allow something must not have to choose.
fn first_value(text: &[u8]) -> Result<Value, MappingError> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    match values.next().unwrap_or_else(|| Err(serde::de::Error::custom("it is empty")))? {
        Value::Object(_) => {
            let distinct = json::distinct(&mut serde_json::Deserializer::from_slice(text));
            distinct.map(Value::Object).map_err(MappingError::Repeated)
        }
        other => Ok(other),
    }
}

/// Why there is no mapping in a body.
#[derive(Debug, Error)]
pub(crate) enum MappingError {
    /// No field of this name.
    #[error("mapping is missing, expected a JSON object")]
    Missing,
    /// It is there, and no JSON.
    #[error("mapping is no JSON object: {}", json::explained(.0))]
    Json(#[from] serde_json::Error),
    /// It is an object that says something twice.
    #[error("mapping, {}", json::explained(.0))]
    Repeated(serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mapping(body: &str) -> Result<Value, String> {
        Form(body.as_bytes()).mapping().map_err(|error| error.to_string())
    }

    #[test]
    fn a_mapping_comes_encoded_raw_or_bare() {
        let expected = Ok(json!({"type": "public", "note": "50% & more + =x"}));
        let encoded: String =
            form_urlencoded::byte_serialize(expected.as_ref().unwrap().to_string().as_bytes()).collect();
        let raw = r#"{"type": "public", "note": "50% & more + =x"}"#;
        for body in [
            format!("mapping={encoded}"),
            format!("x=1&mapping={encoded}&y=2"),
            format!("mapping={raw}"),
            format!("mapping= {raw}"),
            format!("x=1&mapping={raw}"),
            format!("mapping={raw} xyz"),
            format!("mapping={raw}&mapping={{}}"),
            raw.to_owned(),
            format!("\r\n{raw}\n"),
        ] {
            assert_eq!(mapping(&body), expected, "{body}");
        }
    }

    #[test]
    fn an_encoder_that_leaves_the_braces_alone_is_understood() {
        let body = "mapping={%22type%22:%22public%22,+%22maxconnections%22:1}";
        assert_eq!(mapping(body), Ok(json!({"type": "public", "maxconnections": 1})));
    }

    #[test]
    fn what_is_no_mapping_says_why() {
        for (body, complaint) in [
            ("", "mapping is missing"),
            ("x=1", "mapping is missing"),
            ("mappings={}", "mapping is missing"),
            ("mapping", "mapping is missing"),
            ("mapping=", "it is empty"),
            ("mapping=hello", "line 1, column 1: a value is expected"),
            ("mapping=%7G", "line 1, column 1: a value is expected"),
            (r#"mapping={"type":"public","#, "line 1, column 17: the text ends too early"),
            (r#"mapping={"allow":["192.0.2.0/24"],"allow":["0.0.0.0/0"]}"#, "the key \"allow\" is given twice"),
            (r#"{"type":"public","a&b":"%","a&b":"%"}"#, "the key \"a&b\" is given twice"),
            ("mapping=%7B%22name%22:1,%22name%22:1}", "the key \"name\" is given twice"),
            (r#"{"type""#, "the text ends too early"),
        ] {
            let error = mapping(body).unwrap_err();
            assert!(error.contains(complaint), "{body}: {error}");
        }
    }

    #[test]
    fn the_first_of_two_fields_counts() {
        let form = Form(b"id=a+b%2F&mappingid=x&id=c");
        assert_eq!(form.get("id").as_deref(), Some("a b/"));
        assert_eq!(form.get("passkey"), None);
    }
}
