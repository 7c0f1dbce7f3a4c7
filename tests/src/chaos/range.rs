//! What a `Range` header asks for (RFC 9110, section 14).

use std::ops::Range;

/// The part of a content that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No range, or one that is not understood and so is ignored.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// A range of which the content has no byte.
    Unsatisfiable,
}

/// Reads a `Range` header against a content of `total` bytes. Of several ranges at once nothing is known.
pub(super) fn wanted(header: Option<&str>, total: u64) -> Wanted {
    let Some((first, last)) =
        header.and_then(|value| value.strip_prefix("bytes=")).and_then(|value| value.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..total.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..total,
        (Err(_), Ok(count)) if first.is_empty() => total.saturating_sub(count)..total,
        _ => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let read = |header| wanted(Some(header), 10);
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(read("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(read("bytes=4-"), Wanted::Part(4..10));
        assert_eq!(read("bytes=4-99"), Wanted::Part(4..10));
        assert_eq!(read("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(read("bytes=-30"), Wanted::Part(0..10));
        assert_eq!(read("bytes=10-"), Wanted::Unsatisfiable);
        assert_eq!(read("bytes=-0"), Wanted::Unsatisfiable);
        for ignored in ["bytes=5-4", "bytes=1-2,4-5", "lines=1-2", "bytes=x-", "bytes=-", "bytes"] {
            assert_eq!(read(ignored), Wanted::Whole, "{ignored}");
        }
    }
}
