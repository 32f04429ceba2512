//! What a mapping may have besides its ports and limits (docs/protocol.md, "Options"). Without any of it a mapping is as
//! the original's.

use super::field::{FieldError, whole};
use crate::cidr::Cidr;
use crate::limits::{NAME, WAIT_FOR_AGENT};
use crate::wire::proxy_protocol::Version;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// The options of one mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What people call it.
    pub name: Option<String>,
    /// `users`: how users connect, if that is said.
    pub users: Option<UserTransport>,
    /// `proxyprotocol`: agents are told where a user came from.
    pub proxy_protocol: Option<Version>,
    /// `allow`: who may use the user port; `None`: everybody.
    pub allow: Option<Vec<Cidr>>,
    /// `idletimeout`: a session in which nothing has moved for so long is ended; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// `maxusers`: sessions of one network at once; `None`: any number.
    pub max_users: Option<u16>,
    /// `waittime`: how long a user waits for a free agent, if that is said.
    pub wait_time: Option<Duration>,
}

/// How users connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserTransport {
    /// As agents do: TLS, or plain TCP in dev mode.
    Tls,
    /// Plain TCP, whatever agents do.
    Plain,
}

/// The keys, as they stand in requests, answers and configs.json.
pub const KEYS: [&str; 7] = ["name", "users", "proxyprotocol", "allow", "idletimeout", "maxusers", "waittime"];
/// What is expected of a name.
const NAMES: &str = "1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', but no UUID and not \"all\"";
/// What `status` calls the whole daemon.
const ALL: &str = "all";
const TRANSPORTS: [(&str, UserTransport); 2] = [("tls", UserTransport::Tls), ("plain", UserTransport::Plain)];
const VERSIONS: [(&str, Version); 2] = [("v1", Version::One), ("v2", Version::Two)];
/// The longest `idletimeout`, a year, and `waittime`. Seconds.
const IDLE_MAX: u64 = 366 * 24 * 3600;
const WAIT_MAX: u64 = 60;

impl Options {
    /// Reads those of the keys that are there.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, FieldError> {
        let number = |key, what, bounds| fields.get(key).map(|_| whole(fields, key, what, bounds)).transpose();
        let seconds = "a whole number of seconds";
        let idle = number("idletimeout", seconds, 0..=IDLE_MAX)?.filter(|&seconds| seconds > 0);
        Ok(Self {
            name: fields.get("name").map(name).transpose()?,
            users: one_of(fields, "users", &TRANSPORTS)?,
            proxy_protocol: one_of(fields, "proxyprotocol", &VERSIONS)?,
            allow: fields.get("allow").map(ranges).transpose()?,
            idle_timeout: idle.map(Duration::from_secs),
            max_users: number("maxusers", "a whole number of sessions", 1..=u16::MAX.into())?
                .and_then(|most| u16::try_from(most).ok()),
            wait_time: number("waittime", seconds, 0..=WAIT_MAX)?.map(Duration::from_secs),
        })
    }

    /// A mapping with these options, as the log has it: its id, and its name if it has one.
    pub fn label(&self, id: &str) -> String {
        self.name.as_ref().map_or_else(|| id.to_owned(), |name| format!("{id} ({name})"))
    }

    /// The keys that say something.
    pub fn to_fields(&self) -> Map<String, Value> {
        let seconds = |time: Option<Duration>| time.map(|time| json!(time.as_secs()));
        let named = |key, table: Option<&str>| table.map(|word| (key, json!(word)));
        let allow = self.allow.as_ref().map(|ranges| ranges.iter().map(ToString::to_string).collect::<Vec<_>>());
        let fields = [
            named("name", self.name.as_deref()),
            named("users", self.users.and_then(|it| word_of(&TRANSPORTS, it))),
            named("proxyprotocol", self.proxy_protocol.and_then(|it| word_of(&VERSIONS, it))),
            allow.map(|ranges| ("allow", json!(ranges))),
            seconds(self.idle_timeout).map(|value| ("idletimeout", value)),
            self.max_users.map(|most| ("maxusers", json!(most))),
            seconds(self.wait_time).map(|value| ("waittime", value)),
        ];
        fields.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Those that are about users: they mean nothing where there are none.
    pub fn about_users(&self) -> Option<&'static str> {
        let said = [
            ("users", self.users.is_some()),
            ("proxyprotocol", self.proxy_protocol.is_some()),
            ("allow", self.allow.is_some()),
            ("maxusers", self.max_users.is_some()),
            ("waittime", self.wait_time.is_some()),
        ];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(key, _)| key)
    }

    /// What stands in the way of these options in dev mode: the key, and why.
    pub fn not_in_dev_mode(&self) -> Option<(&'static str, &'static str)> {
        let tls = self.users == Some(UserTransport::Tls);
        tls.then_some(("users", "the daemon is in dev mode (key \"dev\" of the settings), in which there is no TLS"))
    }

    /// Users connect without TLS even outside dev mode.
    pub fn has_plain_users(&self) -> bool {
        self.users == Some(UserTransport::Plain)
    }

    /// Whether a user from `address` may connect.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(address)))
    }

    /// How long a user waits for a free agent.
    pub fn wait_time(&self) -> Duration {
        self.wait_time.unwrap_or(WAIT_FOR_AGENT)
    }
}

/// Whether a mapping may be called so. A name stands where an id may: it must not be taken for one.
fn is_name(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_free = text != ALL && uuid::Uuid::try_parse(text).is_err();
    (1..=NAME).contains(&text.len()) && text.bytes().all(is_fit) && is_free
}

fn name(value: &Value) -> Result<String, FieldError> {
    let text = value.as_str().filter(|text| is_name(text));
    text.map(str::to_owned).ok_or_else(|| FieldError::new("name", value, NAMES))
}

fn ranges(value: &Value) -> Result<Vec<Cidr>, FieldError> {
    let expected = "a list of IP addresses and ranges, like [\"192.0.2.7\", \"2001:db8::/32\"]";
    let list = value.as_array().ok_or_else(|| FieldError::new("allow", value, expected))?;
    let range = |item: &Value| item.as_str().and_then(|text| text.parse().ok());
    list.iter().map(|item| range(item).ok_or_else(|| FieldError::new("allow", item, expected))).collect()
}

fn one_of<T: Copy>(
    fields: &Map<String, Value>,
    key: &'static str,
    table: &[(&'static str, T)],
) -> Result<Option<T>, FieldError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    let found = table.iter().find(|(word, _)| value == word).map(|(_, meaning)| *meaning);
    let expected = || table.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    found.map(Some).ok_or_else(|| FieldError::new(key, value, &expected()))
}

fn word_of<T: PartialEq>(table: &[(&'static str, T)], meaning: T) -> Option<&'static str> {
    table.iter().find(|(_, its)| *its == meaning).map(|(word, _)| *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        let Value::Object(fields) = serde_json::from_str(text).unwrap() else { panic!("no object") };
        Options::from_fields(&fields).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let all = r#"{"allow":["192.0.2.0/24","::1"],"idletimeout":60,"maxusers":4,"name":"web-1","proxyprotocol":"v2","users":"plain","waittime":0}"#;
        let options = read(all).unwrap();
        assert_eq!(options.to_fields().len(), KEYS.len());
        assert_eq!(read(&serde_json::to_string(&options.to_fields()).unwrap()), Ok(options));
        assert_eq!(read("{}"), Ok(Options::default()));
        assert!(Options::default().to_fields().is_empty());
        assert_eq!(read(r#"{"idletimeout": 0, "type": "public"}"#), Ok(Options::default()));
    }

    #[test]
    fn wrong_values_are_named_with_what_was_expected() {
        for (text, key, expected) in [
            (r#"{"name": ""}"#, "name", "1 to 64"),
            (r#"{"name": "a b"}"#, "name", "1 to 64"),
            (r#"{"name": "all"}"#, "name", "1 to 64"),
            (r#"{"name": "0C0D7B6E-6c5f-4b0e-9f0e-2c5d3f5c0a11"}"#, "name", "no UUID"),
            (r#"{"name": "0c0d7b6e6c5f4b0e9f0e2c5d3f5c0a11"}"#, "name", "no UUID"),
            (r#"{"users": "TLS"}"#, "users", r#""tls" or "plain""#),
            (r#"{"proxyprotocol": 2}"#, "proxyprotocol", r#""v1" or "v2""#),
            (r#"{"allow": "192.0.2.1"}"#, "allow", "a list"),
            (r#"{"allow": ["192.0.2.1/33"]}"#, "allow", "a list"),
            (r#"{"maxusers": 0}"#, "maxusers", "sessions from 1 to 65535"),
            (r#"{"waittime": 61}"#, "waittime", "seconds from 0 to 60"),
            (r#"{"idletimeout": -1}"#, "idletimeout", "seconds from 0 to"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(key) && error.contains(expected), "{error}");
        }
    }
}
