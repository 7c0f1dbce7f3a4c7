//! Sizes: `64KiB`, `8MiB`, `1GB`, or a number of bytes. Fields are `u64` or `usize`.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer, Serializer,
    de::{Error, Unexpected, Visitor},
};

use crate::units::{self, Unit};

/// The binary units come first, in ascending order: sizes are written in these.
const UNITS: &[Unit] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// The number of binary units.
const BINARY: usize = 5;

/// Deserializes a size.
///
/// # Errors
/// Not a size, or larger than the type can hold.
pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Size(PhantomData))
}

/// Serializes a size in the largest unit that divides it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer, T: Copy + TryInto<u64>>(size: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format((*size).try_into().unwrap_or(u64::MAX)))
}

/// A size in the largest binary unit that divides it.
pub fn format(bytes: u64) -> String {
    units::format(bytes, UNITS.iter().take(BINARY).rev())
}

fn parse(text: &str) -> Option<u64> {
    units::parse(text, UNITS, Some(1))
}

struct Size<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Size<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of bytes or a size such as \"64KiB\" or \"8MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let size = parse(text).and_then(|bytes| T::try_from(bytes).ok());
        size.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<T, E> {
        let size = u64::try_from(bytes).ok().and_then(|bytes| T::try_from(bytes).ok());
        size.ok_or_else(|| E::invalid_value(Unexpected::Signed(bytes), &self))
    }
}

/// Sizes greater than zero.
pub mod positive {
    use serde::Deserializer;

    pub use super::serialize;

    /// Deserializes a size greater than zero.
    ///
    /// # Errors
    /// Not a size, or zero.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64> + Default + PartialEq,
    {
        let size = super::deserialize(deserializer)?;
        if size == T::default() { Err(crate::not_positive("0")) } else { Ok(size) }
    }
}

/// Optional sizes.
pub mod option {
    use serde::{Deserializer, Serializer};

    /// Deserializes a size that is present.
    ///
    /// # Errors
    /// Not a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }

    /// Serializes a size, if present.
    ///
    /// # Errors
    /// Those of the serializer.
    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(size: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => super::serialize(size, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, written) in [
            ("64KiB", 65_536, "64KiB"),
            ("8 MiB", 8 << 20, "8MiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("1000", 1000, "1000B"),
            ("0", 0, "0"),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(format(bytes), written);
            assert_eq!(parse(written), Some(bytes), "{written}");
        }
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for text in ["", "MiB", "8 mib", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
