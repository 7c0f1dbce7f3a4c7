//! How durations and sizes are written: `20m`, `500ms`, `8MiB`.

use std::{fmt, time::Duration};

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[
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

/// How durations are spelt, for error messages.
pub(crate) const DURATION: &str = "a duration such as \"500ms\", \"5s\", \"20m\", \"24h\" or \"7d\"";

/// How sizes are spelt, for error messages.
pub(crate) const SIZE: &str = "a number of bytes or a size such as \"64KiB\" or \"8MiB\"";

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, as large as memory can hold at most.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `8MiB`, `64 KiB`, `1GB` or a bare number of bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse(text, SIZES, Some(1)).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZES.iter().take(5).rev();
        write_in(out, self.0, binary)
    }
}

/// A stretch of time that may have no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// So long.
    For(Duration),
    /// Without end.
    Forever,
}

impl Period {
    /// The end, where there is one.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }
}

/// Reads `500ms`, `5s`, `20m`, `24h`, `7d`; whole numbers only, and a unit always, but for `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text.trim() == "0" {
        return Some(Duration::ZERO);
    }
    parse(text, DURATIONS, None).map(Duration::from_millis)
}

/// Writes a duration so that [`parse_duration`] reads it again.
pub(crate) struct Spelt(pub(crate) Duration);

impl fmt::Display for Spelt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 { out.write_str("0s") } else { write_in(out, millis, DURATIONS.iter().rev()) }
    }
}

fn parse(text: &str, units: &[(&str, u64)], without_unit: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let factor = match unit.trim_start() {
        "" => without_unit?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    // Databases keep times as signed 64-bit milliseconds: what could not be added to one is not a setting.
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|value| *value <= u64::MAX / 1024)
}

/// Writes in the largest unit that divides the value.
fn write_in<'a>(
    out: &mut fmt::Formatter<'_>,
    value: u64,
    mut largest_first: impl Iterator<Item = &'a (&'a str, u64)>,
) -> fmt::Result {
    match largest_first.find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(out, "{}{name}", value / factor),
        None => write!(out, "{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("20m", 1_200_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(
                parse_duration(&Spelt(Duration::from_millis(millis)).to_string()),
                parse_duration(text)
            );
        }
        assert_eq!(Spelt(Duration::from_millis(1500)).to_string(), "1500ms");
        assert_eq!(Spelt(Duration::ZERO).to_string(), "0s");
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "5", "m", "-5s", "1.5h", "5 parsecs", "5S", "99999999999999999999s", "9999999999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, written) in [
            ("64KiB", 65_536, "64KiB"),
            ("8 MiB", 8 << 20, "8MiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("1000", 1000, "1000B"),
            ("0", 0, "0"),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), written);
            assert_eq!(ByteSize::parse(written), Some(ByteSize(bytes)));
        }
        for text in ["", "MiB", "8 mib", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(ByteSize::parse(text), None, "{text:?}");
        }
    }
}
