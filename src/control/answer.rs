//! What the API answers: an HTTP status and a body, which is JSON but for the metrics.

use super::form::MappingError;
use super::registry::AddError;
use crate::clock::timestamp;
use crate::failure;
use crate::limits::DIRECT_ENTRIES;
use crate::mapping::FieldError;
use crate::relay::command::Gone;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::net::IpAddr;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: String,
    pub content_type: &'static str,
    /// A header that this status asks for.
    pub header: Option<(&'static str, &'static str)>,
    /// Once this answer is written, the daemon ends, for this caller.
    pub stop: Option<IpAddr>,
}

impl Answer {
    /// 200, with these fields and the time.
    pub fn ok<const COUNT: usize>(fields: [(&'static str, Value); COUNT]) -> Self {
        let mut fields = Fields::from(fields);
        fields.add("timestamp", timestamp());
        Self::of(&fields)
    }

    /// 200, with `body` as JSON.
    pub fn of(body: &impl Serialize) -> Self {
        Self::json(200, serde_json::to_string(body).expect("answers hold only strings and numbers"))
    }

    /// 200, with the text of [`metrics`].
    pub fn metrics(body: String) -> Self {
        Self { content_type: crate::prometheus::CONTENT_TYPE, ..Self::json(200, body) }
    }

    fn json(status: u16, body: String) -> Self {
        Self { status, body, content_type: "application/json", header: None, stop: None }
    }

    /// `error` says what failed, `reason` why and what was expected.
    pub fn failed(status: u16, error: &str, reason: &str) -> Self {
        Self::json(status, failure::body(error, reason))
    }

    /// With a header that goes with the status.
    pub fn with_header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// The fields of a JSON object, in their order.
pub(super) struct Fields(Vec<(Cow<'static, str>, Value)>);

impl Fields {
    pub fn add(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.0.push((key.into(), value.into()));
    }
}

impl<const COUNT: usize> From<[(&'static str, Value); COUNT]> for Fields {
    fn from(fields: [(&'static str, Value); COUNT]) -> Self {
        Self(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Why an endpoint stops half-way.
pub(super) enum Stopped {
    /// The caller is told so.
    Answered(Answer),
    /// The event loop is gone, and so is the caller.
    Gone,
}

impl From<Answer> for Stopped {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<FieldError> for Stopped {
    fn from(error: FieldError) -> Self {
        Self::Answered(Answer::failed(400, "Bad Request", &error.to_string()))
    }
}

impl From<MappingError> for Stopped {
    fn from(error: MappingError) -> Self {
        Self::Answered(Answer::failed(400, "Error parsing mapping!", &error.to_string()))
    }
}

impl From<AddError> for Stopped {
    fn from(error: AddError) -> Self {
        Self::Answered(match error {
            AddError::Gone => return Self::Gone,
            AddError::NoPorts => Answer::failed(507, "No free ports", "no two usable ports are free"),
            AddError::NoEntries => {
                let reason = format!("there are {DIRECT_ENTRIES} direct entries; one must be removed first");
                Answer::failed(507, "Too many direct entries", &reason)
            }
            AddError::NameTaken { name, id } => {
                let reason = format!("name is {name:?}, which the mapping {id} has; expected one of its own");
                Answer::failed(409, "Name taken", &reason)
            }
            AddError::NotUsable { key, port, usable } => {
                let expected = format!("a port that the settings list for mappings: {usable}");
                return FieldError::new(key, port, &expected).into();
            }
            AddError::PortTaken { key, port, id } => {
                let by = id.map_or("that is being removed".to_owned(), |id| id);
                let reason = format!("{key} is {port}, which the mapping {by} has; expected one that is free");
                Answer::failed(409, "Port taken", &reason)
            }
            AddError::NotBindable(error) => {
                let reason = format!("port {} could not be opened: {}", error.port, error.cause);
                Answer::failed(409, "Port taken", &reason)
            }
            AddError::Refused(error) => {
                let reason = format!("port {} could not be opened: {}", error.port, error.cause);
                Answer::failed(500, "Could not open", &reason)
            }
        })
    }
}
