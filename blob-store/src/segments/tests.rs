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
    fn segments_agree_with_a_bitmap(
        inserted in proptest::collection::vec(range(), 0..24),
        queried in range(),
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
        prop_assert_eq!(segments.contains(queried.clone()), map & bits(queried.clone()) == bits(queried.clone()));
        prop_assert_eq!(segments.intersects(queried.clone()), map & bits(queried.clone()) != 0);
        let end = (queried.start..BITS).find(|bit| map & (1 << bit) == 0).unwrap_or(BITS);
        prop_assert_eq!(segments.end_from(queried.start), end);
        let gaps = gaps_of(map, queried.clone());
        prop_assert_eq!(segments.first_gap(queried.clone()), gaps.first().cloned());
        prop_assert_eq!(segments.gaps(queried).collect::<Vec<_>>(), gaps);

        let json = serde_json::to_string(&segments).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Segments>(&json).unwrap(), &segments);

        segments.clamp(cut);
        prop_assert_eq!(segments.iter().map(bits).sum::<u64>(), map & bits(0..cut));
    }
}

#[test]
fn the_largest_offsets_are_supported() {
    let mut segments = Segments::new();
    segments.insert(u64::MAX - 1..u64::MAX);
    segments.insert(0..1);
    assert_eq!(segments.first_gap(0..u64::MAX), Some(1..u64::MAX - 1));
    segments.insert(1..u64::MAX - 1);
    assert!(segments.contains(0..u64::MAX));
    assert_eq!(segments.covered(), u64::MAX);
}

#[test]
fn a_list_with_an_empty_or_reversed_pair_is_refused() {
    assert_eq!(serde_json::to_string(&Segments::from_iter([5..9, 0..3])).unwrap(), "[[0,3],[5,9]]");
    for text in ["[[3,3]]", "[[5,3]]", "[[0,1],[9,2]]", "[[-1,2]]", "[[0]]", "{}"] {
        assert!(serde_json::from_str::<Segments>(text).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<Segments>("[]").unwrap().is_empty());
}
