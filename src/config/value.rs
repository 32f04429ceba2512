//! Single values of the settings file.
//!
//! Each is checked while serde stands on it, so that an error carries this value's line and column
//! and not those of whatever closes the list around it.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A string that `T` understands.
pub(crate) struct Text<T>(pub T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reader::<Self>(PhantomData))
    }
}

/// A whole number from 1 to the most that `T` holds.
pub(crate) struct Whole<T>(pub T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Reader::<Self>(PhantomData))
    }
}

/// Reads either of the two; what was expected is said by the table of keys.
struct Reader<V>(PhantomData<V>);

impl<T: FromStr<Err = String>> Visitor<'_> for Reader<Text<T>> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
        text.parse().map(Text).map_err(E::custom)
    }
}

impl<T: TryFrom<u64>> Visitor<'_> for Reader<Whole<T>> {
    type Value = Whole<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole<T>, E> {
        // serde_json brings positive numbers to visit_u64.
        Err(E::custom(format!("{number} is out of range")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole<T>, E> {
        let out_of_range = || E::custom(format!("{number} is out of range"));
        if number == 0 {
            return Err(out_of_range());
        }
        T::try_from(number).map(Whole).map_err(|_| out_of_range())
    }
}

/// A string with something in it.
pub(crate) struct NonEmpty(pub String);

impl FromStr for NonEmpty {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("an empty string".to_owned()) } else { Ok(Self(text.to_owned())) }
    }
}

/// An IP address.
pub(crate) struct Address(pub IpAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no IP address"))
    }
}

/// An IP address and a port.
pub(crate) struct Endpoint(pub SocketAddr);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().ok().filter(|address: &SocketAddr| address.port() > 0);
        address.map(Self).ok_or_else(|| format!("{text:?} is no IP address and port"))
    }
}
