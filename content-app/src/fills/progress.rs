//! How a fill stands.

use super::error::FillError;

/// Where a fill stands.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Bytes are landing, or about to.
    Running,
    /// All bytes are here and hash to the digest; the file is being made durable.
    Verified,
    /// The blob is stored.
    Stored,
    /// The bytes are right, but could not be made durable. Whoever reads them now gets them.
    Unstored,
    /// It ended without the blob.
    Failed(FillError),
}

/// What a fill tells on every change.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    /// Grows when everything landed so far was thrown away. Who has passed bytes of an earlier generation on must stop.
    pub(crate) generation: u32,
    /// Of the blob, in bytes, once known.
    pub(crate) size: Option<u64>,
}
