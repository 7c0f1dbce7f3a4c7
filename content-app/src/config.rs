//! What a content node is told at its start.

use std::{sync::Arc, time::Duration};

use internal_api::LinkKeys;

/// Everything that can be set of a content node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names this process among its peers.
    pub node_id: String,
    /// How clients reach this node; empty when it shares registry-api's listener.
    pub public_url: String,
    /// How registry-api and peers reach its internal listener.
    pub internal_url: String,
    /// The keys that sign links and internal requests.
    pub link_keys: Arc<LinkKeys>,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// The largest piece read from a stored blob at once, in bytes.
    pub read_size: usize,
    /// Partial fills untouched for longer are removed.
    pub partial_max_age: Duration,
    /// Whether other nodes have the same database.
    pub sharing: Sharing,
    /// How blobs are downloaded.
    pub fills: FillPolicy,
}

/// Whether other nodes have the same database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// This node is the only one.
    Alone,
    /// Nodes come and go: each blob is downloaded by the one that has its lease, and the others read along.
    Nodes,
}

/// How blobs are downloaded.
#[derive(Debug, Clone)]
pub struct FillPolicy {
    /// What becomes of a fill that nobody waits for any more.
    pub finish_abandoned: FinishAbandoned,
    /// Whether a window of a blob that is not verified yet is served as it lands.
    pub unverified_ranges: UnverifiedRanges,
    /// A reader further ahead of a download than this gets one of its own, in bytes.
    pub jump_ahead: u64,
    /// The unit in which windows are downloaded, in bytes.
    pub segment: u64,
    /// How many bytes at the end of a blob wait for its digest to be right.
    pub hold_back: u64,
    /// Fills at once on this node; further ones wait.
    pub max_fills: usize,
    /// Fills at once from one upstream; further ones wait.
    pub max_fills_per_upstream: usize,
    /// Downloads at once for one blob.
    pub max_downloads_per_fill: usize,
    /// Attempts in a row that bring no byte before a fill fails.
    pub attempts: u32,
    /// The first pause after a failed attempt.
    pub backoff_min: Duration,
    /// The longest pause after a failed attempt.
    pub backoff_max: Duration,
    /// A source that sent wrong bytes is asked last for this long.
    pub set_aside_for: Duration,
    /// The map of a partial file is saved whenever this many bytes have landed.
    pub checkpoint_bytes: u64,
}

impl Default for FillPolicy {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            finish_abandoned: FinishAbandoned::Over { percent: 25 },
            unverified_ranges: UnverifiedRanges::Serve,
            jump_ahead: 8 * MIB,
            segment: 8 * MIB,
            hold_back: 64 * 1024,
            max_fills: 64,
            max_fills_per_upstream: 32,
            max_downloads_per_fill: 16,
            attempts: 6,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            set_aside_for: Duration::from_secs(600),
            checkpoint_bytes: 8 * MIB,
        }
    }
}

/// What becomes of a fill when its last reader has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishAbandoned {
    /// It goes on to its end.
    Always,
    /// It goes on when at least this share of it has landed.
    Over {
        /// Of the blob's size, 0 to 100.
        percent: u8,
    },
    /// It stops; what has landed stays for the next ask.
    Never,
}

impl FinishAbandoned {
    /// Whether a fill with `landed` of `size` bytes goes on without readers.
    pub(crate) fn goes_on(self, landed: u64, size: Option<u64>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Over { percent } => {
                size.is_some_and(|size| u128::from(landed) * 100 >= u128::from(size) * u128::from(percent))
            }
        }
    }
}

/// How a window of a blob not yet verified is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnverifiedRanges {
    /// As its bytes land, marked in `Cache-Status`.
    Serve,
    /// When the digest is known to be right.
    Wait,
}
