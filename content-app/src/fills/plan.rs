//! What to download next: which bytes of a blob are present, and which ones a download claims. Pure.
//!
//! Every byte belongs to at most one claim, so no byte is requested twice.

use std::ops::Range;

use blob_store::Segments;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// Identifies a claim. Never used again in the same plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimId(u64);

/// The range of bytes that one download is to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: ClaimId,
    pub(crate) range: Range<u64>,
}

/// A claim whose download runs.
#[derive(Debug)]
struct Running {
    id: ClaimId,
    /// The offset of its next byte.
    position: u64,
    /// Exclusive. Decreases when a reader far ahead claims the tail.
    end: u64,
}

/// When a reader gets a download of its own, and of what size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangePolicy {
    /// A reader further ahead of a download than this gets its own, in bytes.
    pub(crate) jump_ahead: u64,
    /// Downloads for a range begin and end at multiples of this, in bytes.
    pub(crate) segment: u64,
}

/// Which bytes are present, and which ones are claimed.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    present: Segments,
    running: Vec<Running>,
    next_id: u64,
}

/// The end of a blob of unknown size.
pub(crate) const OPEN_END: u64 = u64::MAX;

impl Plan {
    /// A plan without claims for a blob with these bytes present.
    pub(crate) fn resume(present: Segments) -> Self {
        Self { present, ..Self::default() }
    }

    /// Drops all bytes and claims. Claim ids are not used again, so a late call for an old claim has no effect.
    pub(crate) fn clear(&mut self) {
        *self = Self { next_id: self.next_id, ..Self::default() };
    }

    /// The bytes that are present.
    pub(crate) fn present(&self) -> &Segments {
        &self.present
    }

    /// The end of the contiguous bytes that are present from `offset` on; `offset` when that byte is not present.
    pub(crate) fn contiguous_end(&self, offset: u64) -> u64 {
        self.present.end_from(offset)
    }

    /// Claims the first bytes that are neither present nor claimed: at most to `size`, and to the end of their segment where
    /// a `segment` size is given.
    pub(crate) fn claim_next(&mut self, size: u64, segment: Option<u64>) -> Option<Claim> {
        let start = self.first_unclaimed(size)?;
        let mut end = self.next_taken(start).min(size);
        if let Some(segment) = segment {
            end = end.min(align_up(start.saturating_add(1), segment));
        }
        Some(self.claim(start..end))
    }

    /// Claims the first missing bytes of `range`, unless a running download is about to bring them. Takes the tail of a
    /// download whose position is more than `jump_ahead` bytes behind.
    pub(crate) fn claim_range(
        &mut self,
        range: &Range<u64>,
        size: u64,
        policy: RangePolicy,
    ) -> Option<Claim> {
        let missing = self.contiguous_end(range.start);
        if missing >= range.end.min(size) {
            return None;
        }
        let range_end = align_up(range.end, policy.segment).min(size);
        let aligned = missing - missing % policy.segment.max(1);
        if let Some(running) =
            self.running.iter_mut().find(|running| running.position <= missing && missing < running.end)
        {
            if missing - running.position <= policy.jump_ahead {
                return None;
            }
            let start = if aligned > running.position { aligned } else { missing };
            let end = range_end.min(running.end);
            running.end = start;
            return Some(self.claim(start..end));
        }
        let start = aligned.max(self.last_taken(missing));
        let end = self.next_taken(missing).min(range_end);
        Some(self.claim(start..end))
    }

    /// Records that the download of a claim has written the bytes before `position`.
    pub(crate) fn received(&mut self, id: ClaimId, position: u64) {
        if let Some(running) = self.running.iter_mut().find(|running| running.id == id) {
            self.present.insert(running.position..position);
            running.position = position;
        }
    }

    /// The end of a claim at present; `None` when it was released or cleared.
    pub(crate) fn end_of(&self, id: ClaimId) -> Option<u64> {
        self.running.iter().find(|running| running.id == id).map(|running| running.end)
    }

    /// Releases a claim. Its bytes that are present remain so.
    pub(crate) fn release(&mut self, id: ClaimId) {
        self.running.retain(|running| running.id != id);
    }

    fn claim(&mut self, range: Range<u64>) -> Claim {
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        self.running.push(Running { id, position: range.start, end: range.end });
        Claim { id, range }
    }

    fn first_unclaimed(&self, size: u64) -> Option<u64> {
        let mut offset = 0;
        loop {
            let claimed =
                self.running.iter().find(|running| running.position <= offset && offset < running.end);
            let next = claimed.map_or_else(|| self.contiguous_end(offset), |running| running.end);
            if next >= size {
                return None;
            }
            if next == offset {
                return Some(offset);
            }
            offset = next;
        }
    }

    /// The first byte after `offset` that is present or claimed.
    fn next_taken(&self, offset: u64) -> u64 {
        let present = self.present.iter().map(|segment| segment.start).find(|start| *start > offset);
        let claimed =
            self.running.iter().map(|running| running.position).filter(|position| *position > offset).min();
        present.unwrap_or(OPEN_END).min(claimed.unwrap_or(OPEN_END))
    }

    /// The end of the last segment or claim at or before `offset`.
    fn last_taken(&self, offset: u64) -> u64 {
        let present = self.present.iter().map(|segment| segment.end).filter(|end| *end <= offset).max();
        let claimed = self.running.iter().map(|running| running.end).filter(|end| *end <= offset).max();
        present.unwrap_or(0).max(claimed.unwrap_or(0))
    }
}

fn align_up(offset: u64, segment: u64) -> u64 {
    let segment = segment.max(1);
    offset.div_ceil(segment).saturating_mul(segment)
}
