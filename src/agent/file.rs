//! The configuration file of Core Networking, the field's agent: one JSON object.
//!
//! `{"mode":"public","host":"…","port":6000,"connectioncount":60,"passcode":"…","localhost":"…","localport":80,`
//! `"heartbeatfrequency":20000,"heartbeatabsencethreshold":60000,"cert":"base64 of DER","devmode":false}`
//!
//! Times are milliseconds. A key that nobody knows is reported and left alone: existing files must work.

use super::settings::{Draft, Mode, SettingsError};
use crate::json;
use crate::net::trust::Trust;
use crate::secret::Secret;
use log::warn;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// Reads `file`, whose content is `text`.
pub fn read(file: &Path, text: &[u8]) -> Result<Draft, SettingsError> {
    let (draft, unknown) = parse(text).map_err(|problem| SettingsError::File { file: file.to_owned(), problem })?;
    for key in unknown {
        warn!("{}: key {key:?} is unknown and has no effect", file.display());
    }
    Ok(draft)
}

/// The draft, and the keys that mean nothing to us.
pub(crate) fn parse(text: &[u8]) -> Result<(Draft, Vec<String>), String> {
    let mut keys = match serde_json::from_slice(text) {
        Ok(Value::Object(keys)) => keys,
        Ok(_) => return Err("a JSON object was expected".to_owned()),
        Err(e) => return Err(format!("not valid JSON: {}", json::explained(&e))),
    };
    let draft = Draft {
        name: None,
        mode: take(&mut keys, "mode", "\"public\" or \"private\"", mode)?,
        host: take(&mut keys, "host", "a name or an IP address, as a string", name)?,
        port: take(&mut keys, "port", "a port, 1 to 65535", whole)?,
        connections: take(&mut keys, "connectioncount", "a whole number, 1 to 65535", whole)?,
        passcode: take(&mut keys, "passcode", "a string that is not empty", |value| name(value).map(Secret::new))?,
        local_host: take(&mut keys, "localhost", "a name or an IP address, as a string", name)?,
        local_port: take(&mut keys, "localport", "a port, 1 to 65535", whole)?,
        listen: None,
        server_name: None,
        bind: None,
        proxy: None,
        proxy_protocol: None,
        protocol: take(&mut keys, "protocol", "1 or 2", |value| value.as_u64()?.try_into().ok())?,
        heartbeat: take(&mut keys, "heartbeatfrequency", MILLISECONDS, milliseconds)?,
        absence: take(&mut keys, "heartbeatabsencethreshold", MILLISECONDS, milliseconds)?,
        trust: take(&mut keys, "cert", "base64 of a certificate (DER), as a string", trust)?.flatten().map(Arc::new),
        dev: take(&mut keys, "devmode", "true or false", Value::as_bool)?.unwrap_or_default(),
    };
    Ok((draft, keys.into_iter().map(|(key, _)| key).collect()))
}

const MILLISECONDS: &str = "a whole number of milliseconds, 0 to 2147483647 (0: never)";

/// The value of `key`, if there is one and it is not null.
fn take<T>(
    keys: &mut Map<String, Value>,
    key: &str,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(&value) {
            None => Err(format!("key {key:?}: found {}; expected {expected}", describe(key, &value))),
            some => Ok(some),
        },
    }
}

/// What was found: the value, unless it is secret or long.
fn describe(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if key == "passcode" || text.len() > 60 => format!("a string of {} bytes", text.len()),
        // Unlike JSON, this escapes all that could confuse a terminal.
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        _ if key == "passcode" => "something else".to_owned(),
        value => value.to_string(),
    }
}

fn mode(value: &Value) -> Option<Mode> {
    value.as_str()?.parse().ok()
}

fn name(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn whole(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|&number| number > 0)
}

fn milliseconds(value: &Value) -> Option<u32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok()).and_then(|number| number.try_into().ok())
}

/// `Some(None)`: an empty string, which stands for no certificate.
fn trust(value: &Value) -> Option<Option<Trust>> {
    let text: String = value.as_str()?.split_whitespace().collect();
    if text.is_empty() { Some(None) } else { certificate(&text).map(Some) }
}

/// A certificate as it stands in settings: base64 of its DER.
pub(super) fn certificate(text: &str) -> Option<Trust> {
    // The library's base64 is that of PEM files.
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    ParsedCertificate::try_from(&certificate).ok()?;
    Some(Trust::Certificates(vec![certificate]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FIELD: &str = r#"{"mode":"public","host":"connector.example","port":35046,"connectioncount":60,
        "passcode":"d0a7e7d4-0000-4000-8000-000000000001","localhost":"web","localport":60401,
        "heartbeatfrequency":20000,"heartbeatabsencethreshold":60000,"cert":"","devmode":false}"#;

    #[test]
    fn a_file_from_the_field_works_as_it_is() {
        let (draft, unknown) = parse(FIELD.as_bytes()).unwrap();
        assert!(unknown.is_empty());
        let settings = draft.complete().unwrap();
        assert_eq!(settings.connector.to_string(), "connector.example:35046");
        assert_eq!(settings.connections, 60);
        assert_eq!(settings.heartbeat, Some(Duration::from_secs(20)));
        assert_eq!(settings.absence, Some(Duration::from_secs(60)));
        let role = super::super::settings::Role::Expose;
        assert_eq!((settings.role, settings.target.to_string().as_str()), (role, "web:60401"));
    }

    #[test]
    fn the_example_is_valid_and_has_no_unknown_key() {
        let (draft, unknown) = parse(include_bytes!("../../examples/agent.json")).unwrap();
        assert_eq!((draft.complete().unwrap().connections, unknown), (10, Vec::new()));
    }

    #[test]
    fn the_certificate_is_base64_of_its_der() {
        let made = rcgen::generate_simple_self_signed(["connector.example".to_owned()]).unwrap();
        let base64: String = made.cert.pem().lines().filter(|line| !line.starts_with('-')).collect();
        let (draft, _) = parse(format!(r#"{{"cert":"{base64}"}}"#).as_bytes()).unwrap();
        assert_eq!(draft.trust, Some(Arc::new(Trust::Certificates(vec![made.cert.der().clone()]))));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_what_was_expected() {
        for (text, words) in [
            (r#"{"port":"80"}"#, ["\"port\"", "\"80\"", "1 to 65535"]),
            (r#"{"port":0}"#, ["\"port\"", "0", "1 to 65535"]),
            (r#"{"connectioncount":65536}"#, ["\"connectioncount\"", "65536", "1 to 65535"]),
            (r#"{"heartbeatfrequency":-1}"#, ["\"heartbeatfrequency\"", "-1", "milliseconds"]),
            (r#"{"mode":"both"}"#, ["\"mode\"", "both", "private"]),
            (r#"{"devmode":"false"}"#, ["\"devmode\"", "\"false\"", "true or false"]),
            (r#"{"cert":"AAAA"}"#, ["\"cert\"", "AAAA", "base64"]),
            ("{\"mode\":\"\u{7f}public\"}", ["\"mode\"", "\"\\u{7f}public\"", "private"]),
            (r#"{"host":""}"#, ["\"host\"", "\"\"", "a name"]),
            ("[]", ["JSON", "object", "expected"]),
            ("{\"port\":80,}", ["JSON", "line 1", "column"]),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            for word in words {
                assert!(problem.contains(word), "{word:?} is not in {problem:?}");
            }
        }
    }

    #[test]
    fn a_wrong_passcode_key_does_not_show_it() {
        for text in [r#"{"passcode":12345}"#, r#"{"passcode":["12345"]}"#] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(!problem.contains("12345"), "{problem}");
        }
    }

    #[test]
    fn unknown_keys_are_reported_and_nulls_are_absent() {
        let (draft, unknown) = parse(br#"{"host":null,"hots":"x"}"#).unwrap();
        assert_eq!((draft, unknown), (Draft::default(), vec!["hots".to_owned()]));
    }
}
