//! The state of a fill, as the internal API reports it.

use std::time::Duration;

use oci_types::Digest;
use serde::{Deserialize, Serialize};

/// The state of one fill on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillStatus {
    /// The blob.
    pub digest: Digest,
    /// The state.
    pub state: FillState,
    /// The size of the blob in bytes, once known.
    pub size: Option<u64>,
    /// Bytes that are present on the node.
    pub present: u64,
    /// The number of clients that read the fill.
    pub readers: usize,
    /// The cause of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seconds to wait before a retry, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// The state of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FillState {
    /// Bytes are being downloaded, verified or stored.
    Running,
    /// The blob is stored.
    Stored,
    /// The fill ended without the blob.
    Failed,
}

impl FillStatus {
    /// The status of a blob of `size` bytes that is stored.
    pub fn stored(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            state: FillState::Stored,
            size: Some(size),
            present: size,
            readers: 0,
            error: None,
            retry_after: None,
        }
    }

    /// The time to wait before a retry, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after.map(Duration::from_secs)
    }
}
