//! `Range` and its preconditions (RFC 9110, sections 13 and 14).

use std::ops::Range;

/// What a `Range` header asks of a representation of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// No range, several, or one that is not understood: the whole, with 200 (RFC 9110, section 14.2).
    Whole,
    /// One satisfiable range: 206.
    Window(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `size` bytes.
pub(crate) fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some(spec) = header.and_then(single_spec) else { return Asked::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Asked::Whole };
    match (number(first), number(last)) {
        (Number::Absent, Number::Is(suffix)) => window(size.saturating_sub(suffix), size, size),
        (Number::Is(first), Number::Absent) => window(first, size, size),
        (Number::Is(first), Number::Is(last)) if first <= last => window(first, last.saturating_add(1), size),
        _ => Asked::Whole,
    }
}

/// Whether a `Range` counts, given `If-Range`: only a strong match of our `ETag` keeps it (RFC 9110, section 13.1.5).
pub(crate) fn if_range_holds(if_range: Option<&str>, etag: &str) -> bool {
    if_range.is_none_or(|value| value.trim() == etag)
}

/// Whether `If-None-Match` names our `ETag`, compared weakly (RFC 9110, section 13.1.2).
pub(crate) fn none_match_hits(header: Option<&str>, etag: &str) -> bool {
    header.is_some_and(|value| {
        value.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

fn single_spec(header: &str) -> Option<&str> {
    let (unit, specs) = header.split_once('=')?;
    let one = unit.trim().eq_ignore_ascii_case("bytes") && !specs.contains(',');
    one.then(|| specs.trim())
}

enum Number {
    Absent,
    Is(u64),
    Bad,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for us is beyond every blob.
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Bad
    }
}

fn window(start: u64, end: u64, size: u64) -> Asked {
    if start >= size { Asked::Unsatisfiable } else { Asked::Window(start..end.min(size)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_a_window_and_anything_else_is_whole() {
        for (header, expected) in [
            ("bytes=0-", Asked::Window(0..10)),
            ("bytes=0-0", Asked::Window(0..1)),
            ("bytes=2-5", Asked::Window(2..6)),
            ("bytes=2-500", Asked::Window(2..10)),
            ("bytes=-3", Asked::Window(7..10)),
            ("bytes=-30", Asked::Window(0..10)),
            ("Bytes = 9-", Asked::Window(9..10)),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=5-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(asked(Some(header), 10), expected, "{header}");
        }
        assert_eq!(asked(None, 10), Asked::Whole);
        assert_eq!(asked(Some("bytes=0-"), 0), Asked::Unsatisfiable);
    }

    #[test]
    fn preconditions_compare_as_the_rfc_says() {
        assert!(if_range_holds(None, "\"a\""));
        assert!(if_range_holds(Some("\"a\""), "\"a\""));
        assert!(!if_range_holds(Some("W/\"a\""), "\"a\""));
        assert!(none_match_hits(Some("\"b\", W/\"a\""), "\"a\""));
        assert!(none_match_hits(Some("*"), "\"a\""));
        assert!(!none_match_hits(Some("\"b\""), "\"a\""));
    }
}
