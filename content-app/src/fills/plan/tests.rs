//! Plans of small blobs.

use super::*;

const POLICY: RangePolicy = RangePolicy { jump_ahead: 8, segment: 8 };

fn present(ranges: impl IntoIterator<Item = Range<u64>>) -> Plan {
    let mut present = Segments::default();
    ranges.into_iter().for_each(|range| present.insert(range));
    Plan::resume(present)
}

#[test]
fn a_download_in_order_claims_up_to_the_next_bytes_that_are_present() {
    let mut plan = Plan::default();
    let claim = plan.claim_next(100, None).unwrap();
    assert_eq!(claim.range, 0..100);
    assert!(plan.claim_next(100, None).is_none());
    let mut plan = present([0..10, 40..50]);
    assert_eq!(plan.claim_next(100, None).unwrap().range, 10..40);
    assert_eq!(plan.claim_next(100, None).unwrap().range, 50..100);
}

#[test]
fn a_range_near_a_download_waits_for_it_and_one_far_ahead_claims_its_tail() {
    let mut plan = Plan::default();
    let claim = plan.claim_next(100, None).unwrap();
    assert!(plan.claim_range(&(8..20), 100, POLICY).is_none());
    assert_eq!(plan.claim_range(&(61..70), 100, POLICY).unwrap().range, 56..72);
    assert_eq!(plan.end_of(claim.id), Some(56));
    assert_eq!(plan.claim_next(100, None).unwrap().range, 72..100);
}

#[test]
fn an_unclaimed_range_is_claimed_in_whole_segments_between_its_neighbors() {
    let mut plan = present(Some(0..18));
    assert_eq!(plan.claim_range(&(20..30), 100, POLICY).unwrap().range, 18..32);
    assert_eq!(plan.claim_range(&(90..100), 100, POLICY).unwrap().range, 88..100);
    assert!(plan.claim_range(&(0..18), 100, POLICY).is_none());
}

#[test]
fn a_claim_with_a_segment_size_ends_with_its_segment() {
    let mut plan = Plan::default();
    assert_eq!(plan.claim_next(100, Some(8)).unwrap().range, 0..8);
    assert_eq!(plan.claim_next(100, Some(8)).unwrap().range, 8..16);
}
