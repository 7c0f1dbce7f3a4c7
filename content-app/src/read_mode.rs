//! How much of a blob a reader reads.

/// How much of a blob a reader reads: decides what the reader gets before the blob is verified, and which downloads are
/// started for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// The whole blob. Its end is deferred until the digest is verified.
    Whole,
    /// From an offset to the end, in order, for another node. Deferred as for the whole blob.
    Rest,
    /// A range: served as its bytes arrive, where the policy permits it.
    Range,
}

impl ReadMode {
    /// Whether the bytes up to the end are read, so that one download may bring all of them.
    pub(crate) fn reads_to_end(self) -> bool {
        self != Self::Range
    }
}
