//! `Range` (RFC 9110, section 14).

use std::ops::Range;

use crate::read_mode::ReadMode;

/// A `Range` header, before the size of the blob is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeSpec {
    /// No range, several, or an invalid one: the whole blob, with 200 (RFC 9110, section 14.2).
    Whole,
    /// `bytes=FIRST-`
    From(u64),
    /// `bytes=FIRST-LAST`; the end is exclusive.
    Between(u64, u64),
    /// `bytes=-LENGTH`
    Suffix(u64),
}

/// A range of a blob of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// 200.
    Whole,
    /// 206. Never empty.
    Partial(Range<u64>),
    /// 416.
    Unsatisfiable,
}

impl RangeSpec {
    /// Parses the value of a `Range` header.
    pub(crate) fn parse(header: Option<&str>) -> Self {
        header.and_then(Self::parse_single).unwrap_or(Self::Whole)
    }

    fn parse_single(header: &str) -> Option<Self> {
        let (unit, spec) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", length) => Some(Self::Suffix(number(length)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then(|| Self::Between(first, last.saturating_add(1)))
            }
        }
    }

    /// The range in a blob of `size` bytes.
    pub(crate) fn resolve(self, size: u64) -> Resolved {
        let (start, end) = match self {
            Self::Whole => return Resolved::Whole,
            Self::From(start) => (start, size),
            Self::Between(start, end) => (start, end.min(size)),
            Self::Suffix(length) => (size.saturating_sub(length), size),
        };
        if start < size { Resolved::Partial(start..end) } else { Resolved::Unsatisfiable }
    }

    /// How a client reads, before the size is known.
    pub(crate) fn client_mode(self) -> ReadMode {
        match self {
            Self::Whole | Self::From(0) => ReadMode::Whole,
            Self::From(_) | Self::Between(..) | Self::Suffix(_) => ReadMode::Range,
        }
    }

    /// How a peer reads: to the end in order, after the digest is verified, or any other range as its bytes arrive. The peer
    /// verifies the whole blob itself.
    pub(crate) fn peer_mode(self) -> ReadMode {
        match self {
            Self::Whole | Self::From(_) => ReadMode::Rest,
            Self::Between(..) | Self::Suffix(_) => ReadMode::Range,
        }
    }
}

/// A number; one that is too large lies beyond the end of every blob.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_range_is_partial_and_any_other_header_is_whole() {
        let partial = |start, end| Resolved::Partial(start..end);
        for (header, expected) in [
            ("bytes=0-", partial(0, 10)),
            ("bytes=0-0", partial(0, 1)),
            ("bytes=2-5", partial(2, 6)),
            ("bytes=2-500", partial(2, 10)),
            ("bytes=-3", partial(7, 10)),
            ("bytes=-30", partial(0, 10)),
            ("Bytes = 9-", partial(9, 10)),
            ("bytes=10-", Resolved::Unsatisfiable),
            ("bytes=-0", Resolved::Unsatisfiable),
            ("bytes=99999999999999999999999-", Resolved::Unsatisfiable),
            ("bytes=5-2", Resolved::Whole),
            ("bytes=0-1,3-4", Resolved::Whole),
            ("bytes=", Resolved::Whole),
            ("bytes=-", Resolved::Whole),
            ("bytes=a-b", Resolved::Whole),
            ("bytes=+1-2", Resolved::Whole),
            ("lines=0-1", Resolved::Whole),
        ] {
            assert_eq!(RangeSpec::parse(Some(header)).resolve(10), expected, "{header}");
        }
        assert_eq!(RangeSpec::parse(None).resolve(10), Resolved::Whole);
        assert_eq!(RangeSpec::parse(Some("bytes=0-")).resolve(0), Resolved::Unsatisfiable);
    }

    #[test]
    fn the_mode_follows_from_the_form_of_the_range() {
        for (header, client, peer) in [
            (None, ReadMode::Whole, ReadMode::Rest),
            (Some("bytes=0-"), ReadMode::Whole, ReadMode::Rest),
            (Some("bytes=7-"), ReadMode::Range, ReadMode::Rest),
            (Some("bytes=0-7"), ReadMode::Range, ReadMode::Range),
            (Some("bytes=-7"), ReadMode::Range, ReadMode::Range),
        ] {
            let spec = RangeSpec::parse(header);
            assert_eq!((spec.client_mode(), spec.peer_mode()), (client, peer), "{header:?}");
        }
    }
}
