//! Fields of a JSON object that a Controller sends: what is wrong with them is told by name.

use crate::json::shown;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;
use thiserror::Error;

/// A whole number. `what` it counts is told who sends something else: "a whole number of seconds".
pub(super) fn whole(
    fields: &Map<String, Value>,
    name: &str,
    what: &str,
    bounds: RangeInclusive<u64>,
) -> Result<u64, FieldError> {
    let expected = format!("{what} from {} to {}", bounds.start(), bounds.end());
    let value = fields.get(name).ok_or_else(|| FieldError::missing(name, &expected))?;
    match value.as_u64() {
        Some(number) if bounds.contains(&number) => Ok(number),
        _ => Err(FieldError::new(name, value, &expected)),
    }
}

/// A field that is missing or wrong, by name, and what was expected.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FieldError(String);

impl FieldError {
    /// The field is not there.
    pub fn missing(field: &str, expected: &str) -> Self {
        Self(format!("{field} is missing, expected {expected}"))
    }

    /// The field says `found`.
    pub fn new(field: &str, found: impl Display, expected: &str) -> Self {
        Self(format!("{field} is {}, expected {expected}", shown(&found.to_string())))
    }
}
