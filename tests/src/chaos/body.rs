//! A body as a list of slices: cutting, flipping and lengthening it copies nothing but the byte concerned.

use std::ops::Range;

use bytes::Bytes;

/// Zero bytes that every lengthened body shares.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// Bytes to answer with, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    parts: Vec<Bytes>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { parts: vec![bytes] }
    }
}

impl Body {
    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.parts.iter().map(|part| length(part)).sum()
    }

    /// The bytes of `range`, which is clipped to what there is.
    pub(super) fn slice(&self, range: Range<u64>) -> Body {
        let mut parts = Vec::new();
        let mut start = 0;
        for part in &self.parts {
            let end = start + length(part);
            let from = range.start.clamp(start, end) - start;
            let to = range.end.clamp(start, end) - start;
            if from < to {
                parts.push(part.slice(index(from)..index(to)));
            }
            start = end;
        }
        Body { parts }
    }

    /// The same with every bit of the byte at `at` turned over; unchanged when there is no such byte.
    pub(super) fn with_wrong_byte(&self, at: u64) -> Body {
        let Some(right) = self.slice(at..at + 1).parts.into_iter().next() else { return self.clone() };
        let mut parts = self.slice(0..at).parts;
        parts.push(Bytes::from(vec![!right[0]]));
        parts.extend(self.slice(at + 1..self.len()).parts);
        Body { parts }
    }

    /// The same with `count` zero bytes behind it.
    pub(super) fn longer_by(mut self, count: u64) -> Body {
        let mut left = count;
        while left > 0 {
            let now = left.min(length(&ZEROES));
            self.parts.push(Bytes::from_static(&ZEROES[..index(now)]));
            left -= now;
        }
        self
    }

    /// The same without its last `count` bytes.
    pub(super) fn shorter_by(&self, count: u64) -> Body {
        self.slice(0..self.len().saturating_sub(count))
    }

    /// The slices, in order.
    pub(super) fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }
}

/// A length in the unit of offsets.
pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits in 64 bits")
}

/// An offset that is within memory.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset within memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: Body) -> Vec<u8> {
        body.into_parts().concat()
    }

    #[test]
    fn a_body_is_cut_flipped_and_lengthened_across_its_parts() {
        let body = Body::from(Bytes::from_static(b"0123456789")).longer_by(2);
        assert_eq!(body.len(), 12);
        assert_eq!(text(body.slice(8..11)), b"89\0");
        assert_eq!(text(body.slice(8..99)), b"89\0\0");
        assert_eq!(text(body.with_wrong_byte(3).slice(2..5)), [b'2', !b'3', b'4']);
        assert_eq!(text(body.with_wrong_byte(11).slice(10..12)), [0, 0xff]);
        assert_eq!(body.with_wrong_byte(12).len(), 12);
        assert_eq!(text(body.shorter_by(11)), b"0");
        assert_eq!(body.shorter_by(13).len(), 0);
    }
}
