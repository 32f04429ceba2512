//! Passcodes and passkeys: text that may be compared and sent, never printed.

use std::fmt;
use subtle::ConstantTimeEq;

/// A passcode or passkey. Its `Debug` hides it; it has no `Display` on purpose.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes over `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Bytes of a random one: Connectors give no others.
    pub const RANDOM: usize = 36;

    /// A new random one: UUID version 4, lower case, 36 characters.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// The text itself, for the wire and for `configs.json`; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where the two differ.
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_matches() {
        let secret = Secret::new("abc");
        assert!(secret.matches(b"abc"));
        for wrong in ["", "ab", "abd", "abcd"] {
            assert!(!secret.matches(wrong.as_bytes()), "{wrong:?} was taken");
        }
    }

    #[test]
    fn debug_output_hides_the_text() {
        let secret = Secret::random();
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}
