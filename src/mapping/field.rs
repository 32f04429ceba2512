//! Fields of a JSON object that a Controller sends: what is wrong with them is told by name.

use serde_json::{Map, Value};
use std::fmt::Display;
use thiserror::Error;

pub(super) fn whole(fields: &Map<String, Value>, name: &str, least: u64, most: u64) -> Result<u64, FieldError> {
    let expected = format!("a whole number from {least} to {most}");
    let value = fields.get(name).ok_or_else(|| FieldError::missing(name, &expected))?;
    match value.as_u64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
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
        /// As much of a wrong value as helps to recognize it.
        const SHOWN: usize = 60;
        let text = found.to_string();
        let mut found = String::new();
        for character in text.chars().take(SHOWN) {
            // JSON leaves some control characters as they are.
            if character.is_control() { found.extend(character.escape_default()) } else { found.push(character) }
        }
        if text.chars().nth(SHOWN).is_some() {
            found.push('…');
        }
        Self(format!("{field} is {found}, expected {expected}"))
    }
}
