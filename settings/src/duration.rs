//! Durations: `500ms`, `5s`, `20m`, `24h`, `7d`; whole numbers with a unit, which is optional for
//! `0`.

use std::time::Duration;

use serde::{Deserializer, Serializer};

use crate::{
    from_text,
    units::{self, Unit},
};

const UNITS: &[Unit] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Deserializes a duration.
///
/// # Errors
/// Not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, "a duration such as \"500ms\", \"5s\", \"20m\", \"24h\" or \"7d\"", parse)
}

/// Serializes a duration in the largest unit that divides it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

fn parse(text: &str) -> Option<Duration> {
    let millis = if text.trim() == "0" { 0 } else { units::parse(text, UNITS, None)? };
    Some(Duration::from_millis(millis))
}

fn format(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    units::format(millis, UNITS.iter().rev())
}

/// Durations greater than zero.
pub mod positive {
    use std::time::Duration;

    use serde::Deserializer;

    pub use super::serialize;

    /// Deserializes a duration greater than zero.
    ///
    /// # Errors
    /// Not a duration, or zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let duration = super::deserialize(deserializer)?;
        if duration.is_zero() { Err(crate::not_positive("0")) } else { Ok(duration) }
    }
}

/// Durations without a limit: `forever` is `None`.
pub mod or_forever {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    const FOREVER: &str = "forever";

    /// Deserializes a duration or `forever`.
    ///
    /// # Errors
    /// Neither a duration nor `forever`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let expected = "\"forever\" or a duration such as \"5s\", \"20m\" or \"7d\"";
        crate::from_text(deserializer, expected, |text| match text {
            FOREVER => Some(None),
            text => super::parse(text).map(Some),
        })
    }

    /// Serializes a duration or `forever`.
    ///
    /// # Errors
    /// Those of the serializer.
    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&limit.map_or_else(|| FOREVER.to_owned(), super::format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, millis, written) in [
            ("500ms", 500, "500ms"),
            ("5s", 5000, "5s"),
            ("20m", 1_200_000, "20m"),
            ("24h", 86_400_000, "1d"),
            ("7d", 604_800_000, "7d"),
            ("1500ms", 1500, "1500ms"),
            ("0", 0, "0"),
            ("0s", 0, "0"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(text), Some(duration), "{text}");
            assert_eq!(format(duration), written);
            assert_eq!(parse(written), Some(duration), "{written}");
        }
    }

    #[test]
    fn invalid_durations_are_refused() {
        for text in
            ["", "5", "m", "-5s", "1.5h", "5 parsecs", "5S", "99999999999999999999s", "9999999999999d"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
