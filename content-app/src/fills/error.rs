//! Why a fill ended without its blob.

use std::time::Duration;

use shared_models::db::DbError;
use upstream_client::UpstreamError;

/// Why a fill ended without its blob. Cloned to everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FillError {
    /// No source is recorded for the blob.
    #[error("no source is known for this blob")]
    NoSource,
    /// The upstreams that have the blob are not configured on this node.
    #[error("no upstream that has this blob is configured here")]
    Unconfigured,
    /// Every source was tried; this is what the last one that mattered said.
    #[error("upstream: {0}")]
    Upstream(UpstreamError),
    /// A source sent bytes of another size than the blob's.
    #[error("upstream sent a blob of another size")]
    WrongSize,
    /// Every source sent bytes that do not hash to the digest.
    #[error("upstream sent bytes that do not match the digest")]
    WrongDigest,
    /// The blob does not fit on the disk. Readers are served past it.
    #[error("there is no space left for this blob")]
    NoSpace,
    /// The disk failed.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// The database did not answer.
    #[error("the database is not available")]
    Database,
    /// The blob is stored, where it cannot be read now, and no upstream has it any more.
    #[error("the blob is stored, but cannot be read now, and upstream does not have it")]
    Away,
    /// Another fill stored the blob after this one was asked for: it is to be read from the store.
    #[error("the blob is stored already")]
    AlreadyStored,
    /// The node is going down, or the last reader left.
    #[error("the download was stopped")]
    Stopped,
}

impl FillError {
    /// When it makes sense to ask again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Upstream(UpstreamError::RateLimited { retry_after }) => *retry_after,
            Self::Upstream(UpstreamError::CircuitOpen { retry_after }) => Some(*retry_after),
            _ => None,
        }
    }
}

impl From<DbError> for FillError {
    fn from(_: DbError) -> Self {
        Self::Database
    }
}

impl From<blob_store::StoreError> for FillError {
    fn from(error: blob_store::StoreError) -> Self {
        if error.is_no_space() { Self::NoSpace } else { Self::Storage(error.to_string()) }
    }
}
