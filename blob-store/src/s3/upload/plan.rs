//! Sizes of the parts of a multipart upload.

/// Maximum number of parts of an upload (Amazon S3, "Multipart upload limits").
const MAX_PARTS: u64 = 10_000;

/// For a blob of unknown size, the part size doubles after this many parts.
const PARTS_PER_DOUBLING: usize = 1000;

/// Sizes of the parts of one blob, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartPlan {
    first: u64,
    is_size_known: bool,
}

impl PartPlan {
    /// Parts of `part_size` bytes, or more if there would be too many parts. With a known size, all parts have the same
    /// length, which some servers require.
    pub(crate) fn new(part_size: u64, size: Option<u64>) -> Self {
        let first = part_size.max(1).max(size.unwrap_or(0).div_ceil(MAX_PARTS));
        Self { first, is_size_known: size.is_some() }
    }

    /// Length of the part with this index. The last part of a blob is shorter.
    pub(crate) fn length(self, index: usize) -> u64 {
        let doublings = if self.is_size_known {
            0
        } else {
            u32::try_from(index / PARTS_PER_DOUBLING).unwrap_or(u32::MAX)
        };
        self.first.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn no_blob_has_more_parts_than_permitted() {
        for size in [0, 1, 16 * MIB, 160_000 * MIB, 160_000 * MIB + 1, 5 * MIB * MIB] {
            let plan = PartPlan::new(16 * MIB, Some(size));
            assert!(plan.length(0) >= 16 * MIB);
            assert_eq!(plan.length(0), plan.length(9_999));
            assert!(plan.length(0) * MAX_PARTS >= size);
        }
        let unknown = PartPlan::new(16 * MIB, None);
        assert_eq!(
            (unknown.length(0), unknown.length(999), unknown.length(1000)),
            (16 * MIB, 16 * MIB, 32 * MIB)
        );
        assert!((0..10_000).map(|index| unknown.length(index)).sum::<u64>() > 5 * MIB * MIB);
    }
}
