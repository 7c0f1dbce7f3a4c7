//! Why a fill or one of its downloads failed.

use std::{error::Error, sync::Arc, time::Duration};

use blob_store::StoreError;
use oci_types::UpstreamFailure;
use shared_models::db::DbError;
use upstream_client::UpstreamError;

/// Why a fill ended without its blob. Each reader of the fill gets a clone.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FillError {
    /// No source is recorded for the blob.
    #[error("no source is recorded for the blob")]
    NoSource,
    /// Sources are recorded, but none of their upstreams is configured on this node.
    #[error("no upstream of the blob is configured on this node")]
    Unconfigured,
    /// All sources failed; the most informative of their errors.
    #[error("upstream: {0}")]
    Upstream(#[source] UpstreamError),
    /// A source sent a blob of another size.
    #[error("the upstream sent a blob of another size")]
    WrongSize,
    /// All sources sent bytes that do not match the digest.
    #[error("the upstream sent bytes that do not match the digest")]
    WrongDigest,
    /// The disk has no space for the blob. Its readers are served by a bypass.
    #[error("no space left for the blob")]
    NoSpace,
    /// The blob cannot be written to the disk. Its readers are served by a bypass.
    #[error("failed to write to the disk: {0}")]
    Disk(#[source] StoreError),
    /// The disk or the object store failed.
    #[error("the storage failed: {0}")]
    Storage(#[source] Arc<dyn Error + Send + Sync>),
    /// The database failed.
    #[error("the database is unavailable")]
    Database(#[source] DbError),
    /// The blob is recorded as stored, its storage is unavailable, and no upstream has it any more.
    #[error("the storage of the blob is unavailable, and no upstream has the blob")]
    StorageUnavailable,
    /// The next byte did not arrive within [`NodeSettings::client_wait`](crate::config::NodeSettings::client_wait). The fill
    /// continues.
    #[error("the download of the blob did not progress in time")]
    ClientWait,
    /// Another fill stored the blob after this one was requested: read it from the storage.
    #[error("the blob is stored already")]
    AlreadyStored,
    /// The process stops, or the last reader left.
    #[error("the fill was stopped")]
    Stopped,
}

impl FillError {
    /// A failure of the storage.
    pub(crate) fn storage(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Storage(Arc::from(cause.into()))
    }

    /// Whether only the storage failed: the blob can be streamed without storing it.
    pub(crate) fn permits_bypass(&self) -> bool {
        matches!(self, Self::NoSpace | Self::Disk(_))
    }

    /// When to retry, if the upstream or its circuit breaker states a time.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let Self::Upstream(error) = self else { return None };
        match UpstreamFailure::from(error) {
            UpstreamFailure::RateLimited { retry_after } | UpstreamFailure::Unavailable { retry_after } => {
                retry_after
            }
            _ => None,
        }
    }
}

impl From<DbError> for FillError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for FillError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self::NoSpace,
            StoreError::Io { .. } | StoreError::SyncFailed { .. } => Self::Disk(error),
            error => Self::storage(error),
        }
    }
}

/// Why a download ended before its claim was complete.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The source failed; another download may resume where this one ended.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The source has a blob of another size.
    #[error("the source has a blob of another size")]
    WrongSize,
    /// The body ended before the end of the blob; another download may resume there.
    #[error("the body ended before the end of the blob")]
    Interrupted,
    /// The source sends the blob from its beginning in place of the range of a reader.
    #[error("the source ignores ranges")]
    RangeIgnored,
    /// The source sent fewer bytes per second than
    /// [`FillPolicy::min_rate`](crate::config::FillPolicy::min_rate).
    #[error("the source sends too slowly")]
    TooSlow,
    /// This node failed.
    #[error(transparent)]
    Local(#[from] FillError),
}

impl DownloadError {
    /// Whether the source failed, rather than this node.
    pub(crate) fn is_of_source(&self) -> bool {
        !matches!(self, Self::Local(_))
    }
}
