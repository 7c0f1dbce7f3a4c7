//! How a blob is cut into parts.

/// The most parts that an upload may have (Amazon S3, "Multipart upload limits").
const MOST_PARTS: u64 = 10_000;

/// Where the size is not known, every so many parts are twice as long as those before.
const STEP: usize = 1000;

/// How long each part of a blob is, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartPlan {
    first: u64,
    is_size_known: bool,
}

impl PartPlan {
    /// Parts of `least` bytes. All of one length where the size is known, because some servers want that; longer
    /// than `least` where there would be too many.
    pub(crate) fn new(least: u64, size: Option<u64>) -> Self {
        let first = least.max(1).max(size.unwrap_or(0).div_ceil(MOST_PARTS));
        Self { first, is_size_known: size.is_some() }
    }

    /// The length of the part with this index; the last of a blob is shorter.
    pub(crate) fn length(self, index: usize) -> u64 {
        let doublings = if self.is_size_known { 0 } else { u32::try_from(index / STEP).unwrap_or(u32::MAX) };
        self.first.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn ten_thousand_parts_are_enough_for_every_blob() {
        for size in [0, 1, 16 * MIB, 160_000 * MIB, 160_000 * MIB + 1, 5 * MIB * MIB] {
            let plan = PartPlan::new(16 * MIB, Some(size));
            assert!(plan.length(0) >= 16 * MIB);
            assert_eq!(plan.length(0), plan.length(9_999));
            assert!(plan.length(0) * MOST_PARTS >= size);
        }
        let unknown = PartPlan::new(16 * MIB, None);
        assert_eq!(
            (unknown.length(0), unknown.length(999), unknown.length(1000)),
            (16 * MIB, 16 * MIB, 32 * MIB)
        );
        assert!((0..10_000).map(|index| unknown.length(index)).sum::<u64>() > 5 * MIB * MIB);
    }
}
