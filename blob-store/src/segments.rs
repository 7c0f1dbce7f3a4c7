//! A set of byte ranges.

use std::{iter, ops::Range};

use serde::{Deserialize, Serialize};

/// A set of byte offsets, stored as sorted half-open ranges that neither overlap nor touch.
///
/// A range whose end is not after its start is empty: inserting it changes nothing, and every set contains it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Segments {
    runs: Vec<Range<u64>>,
}

/// A list of pairs contains an empty or reversed range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the end of a segment is not after its start")]
pub struct SegmentsError;

impl Segments {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes of `range`, and merges the ranges that it overlaps or touches.
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

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.run_at(range.start).is_some_and(|run| range.end <= run.end)
    }

    /// Whether any byte of `range` is in the set.
    pub fn intersects(&self, range: Range<u64>) -> bool {
        !range.is_empty()
            && self.runs.get(self.first_ending_after(range.start)).is_some_and(|run| run.start < range.end)
    }

    /// End of the range that contains `offset`; `offset` itself if it is not in the set.
    pub fn end_from(&self, offset: u64) -> u64 {
        self.run_at(offset).map_or(offset, |run| run.end)
    }

    /// The first gap in `within`.
    pub fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        self.gaps(within).next()
    }

    /// The parts of `within` that are not in the set, in order.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let runs = self.runs.get(self.first_ending_after(within.start)..).unwrap_or_default();
        // A gap ends at each run and at the end of `within`, for which an empty run is added.
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

    /// Number of bytes in the set.
    pub fn covered(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The ranges, in order. There is a gap between any two.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().cloned()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Removes the bytes from `end` on.
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
mod tests;
