//! The phase of a fill, and the state that it reports.

use crate::error::FillError;

/// The phase of a fill.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Bytes are being received, or will be.
    Running,
    /// All bytes are present and match the digest; they are being stored.
    Verified,
    /// The blob is stored.
    Stored,
    /// The bytes match the digest, but could not be stored. Present readers can read them.
    StoreFailed,
    /// The fill ended without the blob.
    Failed(FillError),
}

/// A copy of the reported state of a fill.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) phase: Phase,
    pub(crate) size: Option<u64>,
    /// Bytes that are present.
    pub(crate) present: u64,
    pub(crate) readers: usize,
}
