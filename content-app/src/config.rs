//! The configuration of content-app.

use std::{sync::Arc, time::Duration};

use internal_api::LinkKeys;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The configuration of a content node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node among its peers.
    pub node_id: String,
    /// The URL of this node for clients. Empty: that of registry-api in the same process.
    pub public_url: String,
    /// The URL of the internal listener for registry-api and peers.
    pub internal_url: String,
    /// The keys that sign content links and internal requests.
    pub link_keys: Arc<LinkKeys>,
    /// Whether other nodes use the same database.
    pub sharing: Sharing,
    /// The settings of `[content]` that concern the node.
    pub node: NodeSettings,
    /// The settings of `[content]` that concern fills.
    pub fills: FillPolicy,
}

/// Whether other nodes use the same database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// This node is the only one.
    Alone,
    /// Each blob is downloaded by the node that holds its lease; the others follow.
    Nodes,
}

/// The settings of `[content]` that concern the node.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The maximum size of one read from a stored blob, in bytes.
    #[serde(with = "settings::size::positive")]
    pub read_size: usize,
    /// The age after which an unused partial file is deleted.
    #[serde(with = "settings::duration")]
    pub partial_max_age: Duration,
    /// The interval between two heartbeats.
    #[serde(with = "settings::duration::positive")]
    pub heartbeat: Duration,
    /// How long a client waits for the next byte of a blob that is being downloaded.
    #[serde(with = "settings::duration::positive")]
    pub client_wait: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            read_size: 32 * 1024,
            partial_max_age: Duration::from_hours(7 * 24),
            heartbeat: Duration::from_secs(5),
            client_wait: Duration::from_secs(45),
        }
    }
}

/// The number of missed heartbeats after which a node counts as dead.
const MAX_MISSED_HEARTBEATS: u32 = 3;

impl NodeSettings {
    /// The age of the last heartbeat after which a node counts as dead.
    pub fn dead_after(&self) -> Duration {
        self.heartbeat.saturating_mul(MAX_MISSED_HEARTBEATS)
    }
}

/// The settings of `[content]` that concern fills.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FillPolicy {
    /// Whether a fill without readers continues.
    pub finish_abandoned: FinishAbandoned,
    /// The treatment of a range of a blob that is not verified yet.
    pub unverified_ranges: UnverifiedRanges,
    /// The distance of a reader from a download, in bytes, beyond which it gets a download of its own.
    #[serde(with = "settings::size")]
    pub jump_ahead: u64,
    /// The unit of such downloads, in bytes.
    #[serde(with = "settings::size::positive")]
    pub segment: u64,
    /// The number of bytes at the end of a blob that are deferred until its digest is verified. Not
    /// 0, since the last byte must not be sent before that.
    #[serde(with = "settings::size::positive")]
    pub hold_back: u64,
    /// The maximum number of concurrent fills on this node.
    #[serde(deserialize_with = "settings::positive")]
    pub max_fills: usize,
    /// The maximum number of concurrent fills from one upstream.
    #[serde(deserialize_with = "settings::positive")]
    pub max_fills_per_upstream: usize,
    /// The maximum number of concurrent downloads for one blob.
    #[serde(deserialize_with = "settings::positive")]
    pub max_downloads_per_fill: usize,
    /// The number of consecutive attempts without progress after which a fill fails.
    #[serde(rename = "fill_attempts", deserialize_with = "settings::positive")]
    pub attempts: u32,
    /// The delay after the first failed attempt. It doubles with each further one.
    #[serde(rename = "fill_backoff_min", with = "settings::duration")]
    pub backoff_min: Duration,
    /// The maximum delay after a failed attempt.
    #[serde(rename = "fill_backoff_max", with = "settings::duration")]
    pub backoff_max: Duration,
    /// The minimum rate of a download, in bytes per second. Below it, another source replaces the
    /// source of the download, if there is one, and the fill yields to a waiting fill.
    #[serde(rename = "fill_min_rate", with = "settings::size")]
    pub min_rate: u64,
    /// How long a source that sent corrupt content or does not have the blob is used only after all
    /// others.
    #[serde(with = "settings::duration")]
    pub set_aside_for: Duration,
    /// The number of received bytes after which the segment map of a partial file is saved.
    #[serde(with = "settings::size::positive")]
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
            min_rate: 64 * 1024,
            set_aside_for: Duration::from_mins(10),
            checkpoint_bytes: 8 * MIB,
        }
    }
}

/// Whether a fill continues after its last reader has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishAbandoned {
    /// It continues. Written `always`.
    Always,
    /// It continues if at least this percentage is present. Written `25%`.
    Over {
        /// 0 to 100.
        percent: u8,
    },
    /// It stops and keeps the partial file. Written `never`.
    Never,
}

impl FinishAbandoned {
    /// Whether a fill with `received` of `size` bytes continues without readers.
    pub(crate) fn goes_on(self, received: u64, size: Option<u64>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Over { percent } => {
                size.is_some_and(|size| u128::from(received) * 100 >= u128::from(size) * u128::from(percent))
            }
        }
    }
}

impl<'de> Deserialize<'de> for FinishAbandoned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "one of \"always\", \"never\", or a percentage such as \"25%\"";
        settings::from_text(deserializer, expected, |text| match text {
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            text => {
                let percent = text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)?;
                Some(Self::Over { percent })
            }
        })
    }
}

impl Serialize for FinishAbandoned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Always => serializer.serialize_str("always"),
            Self::Never => serializer.serialize_str("never"),
            Self::Over { percent } => serializer.collect_str(&format_args!("{percent}%")),
        }
    }
}

/// The treatment of a range of a blob that is not verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnverifiedRanges {
    /// It is served while it is received, marked in `Cache-Status`.
    Serve,
    /// It is deferred until the digest is verified.
    Wait,
}
