//! Formats of configuration values: durations, sizes, URLs, hosts, proxies.
//!
//! The modules are for `#[serde(with = "…")]`. A setting has a plain type in code, and one format in the configuration
//! file, in environment variables, in flags and in the output of `tidegate check-config`. An error states the value and
//! what is expected; the configuration adds the key and the location.

pub mod duration;
pub mod host;
pub mod http_url;
pub mod proxy;
pub mod secret_url;
pub mod size;
mod units;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// Deserializes a string with `parse`, which returns `None` for an invalid value. `expected` completes "must be".
///
/// # Errors
/// Not a string, or not a valid one.
pub fn from_text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Text { expected, parse })
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Deserializes a list of strings, each with `parse`, as [`from_text`].
///
/// # Errors
/// Not a list, or an element is not a valid string.
pub fn list_from_text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
{
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| parse(text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(text), &expected)))
        .collect()
}

/// Deserializes a number greater than zero.
///
/// # Errors
/// Not a number of this type, or not greater than zero.
pub fn positive<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + fmt::Display + PartialOrd,
{
    let number = T::deserialize(deserializer)?;
    if number > T::default() { Ok(number) } else { Err(not_positive(&number.to_string())) }
}

fn not_positive<E: Error>(found: &str) -> E {
    E::invalid_value(Unexpected::Other(found), &"more than 0")
}
