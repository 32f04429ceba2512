//! What a Controller asks for when it adds a mapping, as JSON (docs/protocol.md, "Control API").

use super::field::{FieldError, whole};
use super::options::Options;
use serde_json::{Map, Value};
use std::time::Duration;

/// Longest absence threshold, ms.
pub const ABSENCE_MAX: u64 = i32::MAX as u64;

/// A mapping that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: Wanted,
    pub options: Options,
    /// port1 and port2, where it must be these.
    pub ports: [Option<u16>; 2],
}

/// What sort of mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Users on port2, agents on port1.
    Public(Terms),
    /// Agents on both ports, each with its own terms.
    Private([Terms; 2]),
}

/// How many agents a port takes, and how long they may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Authorized connections at most.
    pub max_connections: u16,
    /// `None` = for ever.
    pub absence: Option<Duration>,
}

impl Request {
    /// Reads the JSON object of mapping/add. Fields that nobody asked for are ignored.
    pub fn from_json(json: &Value) -> Result<Self, FieldError> {
        let Value::Object(fields) = json else {
            return Err(FieldError::new("mapping", json, "a JSON object"));
        };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) if kind == "public" => {
                Wanted::Public(terms(fields, "maxconnections", "heartbeatabsencethreshold")?)
            }
            Some(Value::String(kind)) if kind == "private" => Wanted::Private([
                terms(fields, "maxconnectionsport1", "heartbeatabsencethresholdport1")?,
                terms(fields, "maxconnectionsport2", "heartbeatabsencethresholdport2")?,
            ]),
            Some(other) => return Err(FieldError::new("type", other, "\"public\" or \"private\"")),
            None => return Err(FieldError::missing("type", "\"public\" or \"private\"")),
        };
        let options = Options::from_fields(fields)?;
        if let (Wanted::Private(_), Some(key)) = (&kind, options.about_users()) {
            return Err(FieldError::new(key, "given", "no such key for a private pipe: it has no users"));
        }
        let [port1, port2] = [port(fields, "port1")?, port(fields, "port2")?];
        if port1.is_some() && port1 == port2 {
            return Err(FieldError::new("port2", "the same as port1", "another port"));
        }
        Ok(Self { kind, options, ports: [port1, port2] })
    }
}

impl From<Wanted> for Request {
    fn from(kind: Wanted) -> Self {
        Self { kind, options: Options::default(), ports: [None, None] }
    }
}

fn port(fields: &Map<String, Value>, name: &str) -> Result<Option<u16>, FieldError> {
    let number = fields.get(name).map(|_| whole(fields, name, "a port", 1..=u16::MAX.into())).transpose()?;
    Ok(number.and_then(|number| u16::try_from(number).ok()))
}

fn terms(fields: &Map<String, Value>, connections: &str, absence: &str) -> Result<Terms, FieldError> {
    let max_connections = whole(fields, connections, "a whole number of connections", 1..=u16::MAX.into())?;
    let absence = whole(fields, absence, "a whole number of milliseconds", 0..=ABSENCE_MAX)?;
    Ok(Terms { max_connections: max_connections as u16, absence: absence_of_millis(absence) })
}

/// 0 ms stands for "never" in the files and requests.
pub fn absence_of_millis(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(json: Value) -> Result<Request, String> {
        Request::from_json(&json).map_err(|error| error.to_string())
    }

    fn terms(max_connections: u16, millis: u64) -> Terms {
        Terms { max_connections, absence: absence_of_millis(millis) }
    }

    #[test]
    fn a_public_mapping_has_one_set_of_terms() {
        let json = json!({"type": "public", "maxconnections": 60, "heartbeatabsencethreshold": 200000, "zzz": true});
        assert_eq!(request(json), Ok(Wanted::Public(terms(60, 200_000)).into()));
    }

    #[test]
    fn a_private_mapping_has_two() {
        let json = json!({"type": "private", "maxconnectionsport1": 1, "maxconnectionsport2": 65535,
            "heartbeatabsencethresholdport1": 0, "heartbeatabsencethresholdport2": 2147483647});
        let expected = [Terms { max_connections: 1, absence: None }, terms(65535, 2_147_483_647)];
        assert_eq!(request(json), Ok(Wanted::Private(expected).into()));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        let connections = "expected a whole number of connections from 1 to 65535";
        let absence = "expected a whole number of milliseconds from 0 to 2147483647";
        let public = |connections: Value, absence: Value| json!({"type": "public", "maxconnections": connections, "heartbeatabsencethreshold": absence});
        for (json, complaint) in [
            (json!([1]), "mapping is [1], expected a JSON object".to_owned()),
            (json!({}), "type is missing, expected \"public\" or \"private\"".to_owned()),
            (json!({"type": 1}), "type is 1, expected \"public\" or \"private\"".to_owned()),
            (json!({"type": "PUBLIC"}), "type is \"PUBLIC\", expected \"public\" or \"private\"".to_owned()),
            (json!({"type": "public"}), format!("maxconnections is missing, {connections}")),
            (
                json!({"type": "private", "maxconnectionsport1": 1}),
                format!("heartbeatabsencethresholdport1 is missing, {absence}"),
            ),
            (public(json!("60"), json!(1)), format!("maxconnections is \"60\", {connections}")),
            (public(json!(0), json!(1)), format!("maxconnections is 0, {connections}")),
            (public(json!(-1), json!(1)), format!("maxconnections is -1, {connections}")),
            (public(json!(65536), json!(1)), format!("maxconnections is 65536, {connections}")),
            (public(json!(2.7), json!(1)), format!("maxconnections is 2.7, {connections}")),
            (public(json!(1), json!(-5)), format!("heartbeatabsencethreshold is -5, {absence}")),
            (public(json!(1), json!(2147483648u64)), format!("heartbeatabsencethreshold is 2147483648, {absence}")),
            (public(json!(1), json!(null)), format!("heartbeatabsencethreshold is null, {absence}")),
        ] {
            assert_eq!(request(json), Err(complaint));
        }
    }

    #[test]
    fn a_long_wrong_value_is_cut() {
        let message = request(json!({"type": "ä".repeat(1000)})).unwrap_err();
        assert!(message.len() < 250, "{message}");
    }

    #[test]
    fn control_characters_are_shown() {
        let message = request(json!({"type": "\u{1b}\u{7f}\u{9b}"})).unwrap_err();
        assert!(message.starts_with(r#"type is "\u001b\u{7f}\u{9b}", expected"#), "{message}");
    }
}
