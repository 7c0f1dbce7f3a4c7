//! Whole numbers with a unit: `20m`, `8MiB`.

/// A unit and its factor.
pub(crate) type Unit = (&'static str, u64);

/// The maximum value. Databases store times as signed 64-bit milliseconds: the sum of a time and a
/// setting does not overflow.
const MAX: u64 = u64::MAX / 1024;

/// Parses a number with one of the units. Without a unit the factor is `without_unit`.
pub(crate) fn parse(text: &str, units: &[Unit], without_unit: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let factor = match unit.trim_start() {
        "" => without_unit?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|value| *value <= MAX)
}

/// Formats a value in the largest unit that divides it. `units` are in descending order and end with factor 1.
pub(crate) fn format(value: u64, mut units: impl Iterator<Item = &'static Unit>) -> String {
    match units.find(|(_, factor)| value.is_multiple_of(*factor)) {
        Some((name, factor)) if value != 0 => format!("{}{name}", value / factor),
        _ => value.to_string(),
    }
}
