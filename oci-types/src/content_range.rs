//! `Content-Range` (RFC 9110, section 14.4).

use std::ops::Range;

/// The value of a `Content-Range` header in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes in the body, never empty; `None` in the form `bytes */SIZE`, which means that a
    /// range is not satisfiable.
    pub range: Option<Range<u64>>,
    /// Size of the whole content; `None` when the sender does not know it.
    pub size: Option<u64>,
}

impl ContentRange {
    /// Parses a header value. `None` for another unit and for a range that is reversed or ends
    /// after the size.
    pub fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let size = match size.trim() {
            "*" => None,
            size => Some(size.parse().ok()?),
        };
        let range = match range.trim() {
            "*" => None,
            range => {
                let (first, last) = range.split_once('-')?;
                let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
                let end = last.checked_add(1)?;
                if last < first || size.is_some_and(|size| end > size) {
                    return None;
                }
                Some(first..end)
            }
        };
        Some(Self { range, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_and_a_size_may_each_be_missing() {
        for (text, range, size) in [
            ("bytes 0-0/7", Some(0..1), Some(7)),
            ("bytes 5-6/7", Some(5..7), Some(7)),
            ("bytes 5-9/*", Some(5..10), None),
            ("bytes */7", None, Some(7)),
            (" bytes 0 - 1 / 7 ", Some(0..2), Some(7)),
        ] {
            assert_eq!(ContentRange::parse(text), Some(ContentRange { range, size }), "{text}");
        }
    }

    #[test]
    fn an_impossible_range_is_rejected() {
        for text in [
            "",
            "bytes",
            "bytes 0-0",
            "bytes 5-4/9",
            "bytes 0-9/9",
            "bytes 0-18446744073709551615/*",
            "items 0-1/9",
            "bytes -1/9",
            "bytes a-b/c",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text:?}");
        }
    }
}
