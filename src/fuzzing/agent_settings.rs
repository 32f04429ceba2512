//! The agent's settings file.

use super::assert_is_readable;
use crate::agent::file;
use crate::agent::services_file;
use crate::agent::settings::Security;
use crate::net::trust::{self, Trust};
use serde_json::Value;

pub fn body(bytes: &[u8]) {
    if let Some(fault) = services_file::problem(bytes) {
        assert_is_readable(&fault.to_string());
    }
    let (draft, unknown) = match file::parse(bytes) {
        Ok(parsed) => parsed,
        Err(problem) => {
            assert_is_readable(&problem);
            return assert_says_no_passcode(bytes, &problem);
        }
    };
    let Ok(Value::Object(keys)) = serde_json::from_slice(bytes) else { panic!("taken, but no object") };
    assert!(unknown.iter().all(|key| keys.contains_key(key)));
    match draft.complete() {
        Ok(settings) => {
            assert!(settings.connector.port != 0 && settings.target.port != 0 && settings.connections > 0);
            assert!(settings.heartbeat.is_none_or(|time| !time.is_zero()));
            assert!(settings.absence.is_none_or(|time| !time.is_zero()));
            assert_says_no_passcode(bytes, &format!("{settings:?}"));
            if let Security::Tls { trust, .. } = &settings.security {
                if let Trust::Certificates(_) = **trust {
                    let _ = trust::client_config(trust, None);
                }
            }
        }
        Err(error) => {
            assert_is_readable(&error.to_string());
            assert_says_no_passcode(bytes, &error.to_string());
        }
    }
}

/// Where the passcode stands once in the file and is long enough not to be some other word.
fn assert_says_no_passcode(bytes: &[u8], message: &str) {
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(passcode) = json.get("passcode").and_then(Value::as_str).filter(|passcode| passcode.len() >= 12) else {
        return;
    };
    if String::from_utf8_lossy(bytes).matches(passcode).count() == 1 {
        assert!(!message.contains(passcode), "{message}");
    }
}
