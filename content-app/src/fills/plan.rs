//! Which bytes of a blob are here, and which are on their way: the bookkeeping of a fill, without I/O.
//!
//! Every byte belongs to at most one claim, so every byte is asked of upstream once.

use std::ops::Range;

use blob_store::Segments;

/// Names a claim until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimId(u64);

/// A stretch that one download is bringing.
#[derive(Debug)]
struct Claim {
    id: ClaimId,
    /// Where its next byte goes.
    position: u64,
    /// Where it stops, exclusive. May move down while it runs, when a reader far ahead takes over its tail.
    end: u64,
}

/// How far a reader may be ahead of a running download before it gets one of its own, and in what pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// In bytes.
    pub(crate) jump_ahead: u64,
    /// Downloads for a window begin and end at multiples of this, in bytes.
    pub(crate) segment: u64,
}

/// What is here and what is claimed.
#[derive(Debug, Default)]
pub(crate) struct Map {
    present: Segments,
    claims: Vec<Claim>,
    next_id: u64,
}

/// Stands for the end of a blob whose size is not known yet.
pub(crate) const OPEN_END: u64 = u64::MAX;

impl Map {
    /// Nothing claimed, and `present` here already.
    pub(crate) fn resuming(present: Segments) -> Self {
        Self { present, ..Self::default() }
    }

    /// Nothing is here and nothing is claimed any more. Claims of before keep their names to themselves: a download that
    /// ends late, or was asked for before, finds its claim gone and not another one.
    pub(crate) fn forget(&mut self) {
        *self = Self { next_id: self.next_id, ..Self::default() };
    }

    /// What is here.
    pub(crate) fn present(&self) -> &Segments {
        &self.present
    }

    /// The end of the run of bytes that are here from `offset` on; `offset` itself when that byte is not here.
    pub(crate) fn reach(&self, offset: u64) -> u64 {
        self.present.end_from(offset)
    }

    /// Claims the first bytes from `from` on that are neither here nor claimed: at most up to `size`, and no further than
    /// the end of their segment where the download should be `bounded`.
    pub(crate) fn claim_in_order(
        &mut self,
        from: u64,
        size: u64,
        bounded: Option<u64>,
    ) -> Option<(ClaimId, Range<u64>)> {
        let start = self.first_unclaimed(from, size)?;
        let mut end = self.next_taken(start).min(size);
        if let Some(segment) = bounded {
            end = end.min(align_up(start.saturating_add(1), segment));
        }
        Some(self.claim(start..end))
    }

    /// Claims what `window` needs first, when no running download will bring it soon. Takes over the tail of a download
    /// whose position is more than `jump_ahead` behind.
    pub(crate) fn claim_for_window(
        &mut self,
        window: &Range<u64>,
        size: u64,
        reach: Reach,
    ) -> Option<(ClaimId, Range<u64>)> {
        let wanted = self.reach(window.start);
        if wanted >= window.end.min(size) {
            return None;
        }
        let window_end = align_up(window.end, reach.segment).min(size);
        let aligned = wanted - wanted % reach.segment.max(1);
        if let Some(claim) =
            self.claims.iter_mut().find(|claim| claim.position <= wanted && wanted < claim.end)
        {
            if wanted - claim.position <= reach.jump_ahead {
                return None;
            }
            let start = if aligned > claim.position { aligned } else { wanted };
            let end = window_end.min(claim.end);
            claim.end = start;
            return Some(self.claim(start..end));
        }
        let start = aligned.max(self.last_taken(wanted));
        let end = self.next_taken(wanted).min(window_end);
        Some(self.claim(start..end))
    }

    /// Records that a claim's download has landed bytes up to `position`.
    pub(crate) fn landed(&mut self, id: ClaimId, position: u64) {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.id == id) {
            self.present.insert(claim.position..position);
            claim.position = position;
        }
    }

    /// Where a claim ends now.
    pub(crate) fn end_of(&self, id: ClaimId) -> Option<u64> {
        self.claims.iter().find(|claim| claim.id == id).map(|claim| claim.end)
    }

    /// Gives up a claim; what has landed stays.
    pub(crate) fn release(&mut self, id: ClaimId) {
        self.claims.retain(|claim| claim.id != id);
    }

    fn claim(&mut self, range: Range<u64>) -> (ClaimId, Range<u64>) {
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        self.claims.push(Claim { id, position: range.start, end: range.end });
        (id, range)
    }

    fn first_unclaimed(&self, from: u64, size: u64) -> Option<u64> {
        let mut offset = from;
        loop {
            let skipped = self.claims.iter().find(|claim| claim.position <= offset && offset < claim.end);
            let next = skipped.map_or_else(|| self.reach(offset), |claim| claim.end);
            if next >= size {
                return None;
            }
            if next == offset {
                return Some(offset);
            }
            offset = next;
        }
    }

    /// The first byte after `offset` that is here or claimed.
    fn next_taken(&self, offset: u64) -> u64 {
        let present = self.present.iter().map(|run| run.start).find(|start| *start > offset);
        let claimed =
            self.claims.iter().map(|claim| claim.position).filter(|position| *position > offset).min();
        present.unwrap_or(OPEN_END).min(claimed.unwrap_or(OPEN_END))
    }

    /// The end of the last run or claim at or before `offset`.
    fn last_taken(&self, offset: u64) -> u64 {
        let present = self.present.iter().map(|run| run.end).filter(|end| *end <= offset).max();
        let claimed = self.claims.iter().map(|claim| claim.end).filter(|end| *end <= offset).max();
        present.unwrap_or(0).max(claimed.unwrap_or(0))
    }
}

fn align_up(offset: u64, segment: u64) -> u64 {
    let segment = segment.max(1);
    offset.div_ceil(segment).saturating_mul(segment)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const REACH: Reach = Reach { jump_ahead: 8, segment: 8 };

    #[test]
    fn a_whole_download_claims_to_the_end_and_stops_at_what_is_here() {
        let mut map = Map::default();
        let (id, range) = map.claim_in_order(0, 100, None).unwrap();
        assert_eq!(range, 0..100);
        assert!(map.claim_in_order(0, 100, None).is_none());
        map.landed(id, 10);
        map.release(id);
        let mut present = Segments::default();
        present.insert(0..10);
        present.insert(40..50);
        let mut map = Map::resuming(present);
        assert_eq!(map.claim_in_order(0, 100, None).unwrap().1, 10..40);
        assert_eq!(map.claim_in_order(0, 100, None).unwrap().1, 50..100);
    }

    #[test]
    fn a_window_near_a_download_waits_for_it_and_one_far_ahead_takes_over_its_tail() {
        let mut map = Map::default();
        let (id, _) = map.claim_in_order(0, 100, None).unwrap();
        assert!(map.claim_for_window(&(8..20), 100, REACH).is_none());
        let (_, jumped) = map.claim_for_window(&(61..70), 100, REACH).unwrap();
        assert_eq!(jumped, 56..72);
        assert_eq!(map.end_of(id), Some(56));
        assert_eq!(map.claim_in_order(0, 100, None).unwrap().1, 72..100);
    }

    #[test]
    fn a_window_in_nobodys_stretch_claims_whole_segments_between_its_neighbours() {
        let mut present = Segments::default();
        present.insert(0..18);
        let mut map = Map::resuming(present);
        assert_eq!(map.claim_for_window(&(20..30), 100, REACH).unwrap().1, 18..32);
        assert_eq!(map.claim_for_window(&(90..100), 100, REACH).unwrap().1, 88..100);
        assert!(map.claim_for_window(&(0..18), 100, REACH).is_none());
    }

    #[test]
    fn bounded_downloads_end_with_their_segment() {
        let mut map = Map::default();
        assert_eq!(map.claim_in_order(0, 100, Some(8)).unwrap().1, 0..8);
        assert_eq!(map.claim_in_order(0, 100, Some(8)).unwrap().1, 8..16);
    }
}
