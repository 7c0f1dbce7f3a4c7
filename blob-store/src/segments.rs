//! Which bytes of a blob are there.

use std::{iter, ops::Range};

use serde::{Deserialize, Serialize};

/// A set of byte offsets, kept as sorted half-open ranges that neither overlap nor touch.
///
/// A range that is empty (or turned around) holds no byte: inserting it changes nothing, and every set
/// contains it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Segments {
    runs: Vec<Range<u64>>,
}

/// A list of pairs is not a set of segments: some pair has no byte between its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a segment ends where it begins or before")]
pub struct SegmentsError;

impl Segments {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes of `range`, joining it with the runs that it overlaps or touches.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.runs.partition_point(|run| run.end < range.start);
        let after = self.runs.partition_point(|run| run.start <= range.end);
        let joined = self.runs.get(first..after).unwrap_or_default();
        let start = joined.first().map_or(range.start, |run| run.start.min(range.start));
        let end = joined.last().map_or(range.end, |run| run.end.max(range.end));
        self.runs.splice(first..after, iter::once(start..end));
    }

    /// Whether every byte of `range` is there.
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.run_at(range.start).is_some_and(|run| range.end <= run.end)
    }

    /// Whether any byte of `range` is there.
    pub fn intersects(&self, range: Range<u64>) -> bool {
        !range.is_empty()
            && self.runs.get(self.first_ending_after(range.start)).is_some_and(|run| run.start < range.end)
    }

    /// The end of the run that holds `offset`; `offset` itself when that byte is not there.
    pub fn end_from(&self, offset: u64) -> u64 {
        self.run_at(offset).map_or(offset, |run| run.end)
    }

    /// The first stretch of `within` that is not there, as long as it goes.
    pub fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        self.gaps(within).next()
    }

    /// Every stretch of `within` that is not there, in order.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let runs = self.runs.get(self.first_ending_after(within.start)..).unwrap_or_default();
        // A gap lies before each run, and one after the last: the empty run at the end of the window stands
        // for that.
        let before = runs.iter().cloned().take_while({
            let end = within.end;
            move |run| run.start < end
        });
        let (mut at, end) = (within.start, within.end);
        before
            .chain(iter::once(end..end))
            .map(move |run| {
                let gap = at..run.start;
                at = run.end;
                gap
            })
            .filter(|gap| !gap.is_empty())
    }

    /// How many bytes are there.
    pub fn covered(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The runs, in order; between two of them is always a gap.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().cloned()
    }

    /// Whether no byte is there.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Drops every byte at `end` and after it.
    pub fn clamp(&mut self, end: u64) {
        self.runs.truncate(self.runs.partition_point(|run| run.start < end));
        if let Some(last) = self.runs.last_mut() {
            last.end = last.end.min(end);
        }
    }

    fn first_ending_after(&self, offset: u64) -> usize {
        self.runs.partition_point(|run| run.end <= offset)
    }

    fn run_at(&self, offset: u64) -> Option<&Range<u64>> {
        self.runs.get(self.first_ending_after(offset)).filter(|run| run.start <= offset)
    }
}

impl FromIterator<Range<u64>> for Segments {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut segments = Self::new();
        ranges.into_iter().for_each(|range| segments.insert(range));
        segments
    }
}

impl TryFrom<Vec<(u64, u64)>> for Segments {
    type Error = SegmentsError;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Self, SegmentsError> {
        if pairs.iter().all(|(start, end)| start < end) {
            Ok(pairs.into_iter().map(|(start, end)| start..end).collect())
        } else {
            Err(SegmentsError)
        }
    }
}

impl From<Segments> for Vec<(u64, u64)> {
    fn from(segments: Segments) -> Self {
        segments.runs.into_iter().map(|run| (run.start, run.end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BITS: u64 = 64;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..BITS, 0..BITS).prop_map(|(start, end)| start..end)
    }

    fn bits(range: Range<u64>) -> u64 {
        range.map(|bit| 1 << bit).sum()
    }

    /// The runs of zeros of `map` in `within`.
    fn gaps_of(map: u64, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for bit in within.filter(|bit| map & (1 << bit) == 0) {
            match gaps.last_mut() {
                Some(gap) if gap.end == bit => gap.end += 1,
                _ => gaps.push(bit..bit + 1),
            }
        }
        gaps
    }

    proptest! {
        #[test]
        fn segments_say_what_a_bitmap_says(
            inserted in proptest::collection::vec(range(), 0..24),
            asked in range(),
            cut in 0..BITS,
        ) {
            let mut segments = Segments::new();
            let mut map = 0_u64;
            for range in inserted {
                segments.insert(range.clone());
                map |= bits(range);
                prop_assert!(segments.runs.is_sorted_by(|left, right| left.end < right.start));
                prop_assert!(segments.runs.iter().all(|run| run.start < run.end));
            }
            prop_assert_eq!(segments.iter().map(bits).sum::<u64>(), map);
            prop_assert_eq!(segments.covered(), u64::from(map.count_ones()));
            prop_assert_eq!(segments.is_empty(), map == 0);
            prop_assert_eq!(segments.contains(asked.clone()), map & bits(asked.clone()) == bits(asked.clone()));
            prop_assert_eq!(segments.intersects(asked.clone()), map & bits(asked.clone()) != 0);
            let end = (asked.start..BITS).find(|bit| map & (1 << bit) == 0).unwrap_or(BITS);
            prop_assert_eq!(segments.end_from(asked.start), end);
            let gaps = gaps_of(map, asked.clone());
            prop_assert_eq!(segments.first_gap(asked.clone()), gaps.first().cloned());
            prop_assert_eq!(segments.gaps(asked).collect::<Vec<_>>(), gaps);

            let json = serde_json::to_string(&segments).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Segments>(&json).unwrap(), &segments);

            segments.clamp(cut);
            prop_assert_eq!(segments.iter().map(bits).sum::<u64>(), map & bits(0..cut));
        }
    }

    #[test]
    fn the_far_end_of_offsets_is_held() {
        let mut segments = Segments::new();
        segments.insert(u64::MAX - 1..u64::MAX);
        segments.insert(0..1);
        assert_eq!(segments.first_gap(0..u64::MAX), Some(1..u64::MAX - 1));
        segments.insert(1..u64::MAX - 1);
        assert!(segments.contains(0..u64::MAX));
        assert_eq!(segments.covered(), u64::MAX);
    }

    #[test]
    fn a_list_with_an_empty_pair_is_no_segments() {
        assert_eq!(serde_json::to_string(&Segments::from_iter([5..9, 0..3])).unwrap(), "[[0,3],[5,9]]");
        for text in ["[[3,3]]", "[[5,3]]", "[[0,1],[9,2]]", "[[-1,2]]", "[[0]]", "{}"] {
            assert!(serde_json::from_str::<Segments>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Segments>("[]").unwrap().is_empty());
    }
}
