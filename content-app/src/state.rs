//! The state that requests, fills and background work share: data only.

use std::{collections::HashMap, time::Duration};

use blob_store::BlobStore;
use internal_api::NodeClient;
use oci_types::Digest;
use shared_models::{TouchBuffer, db::Db};
use upstream_client::Upstream;

use crate::{blob_lookup::BlobLookup, config::Config, limits::Limits, metrics::FillMetrics};

/// The state that requests, fills and background work share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) store: BlobStore,
    /// Lookups of stored blobs, cached.
    pub(crate) blobs: BlobLookup,
    /// The configured upstreams, by name.
    pub(crate) upstreams: HashMap<String, Upstream>,
    /// The other nodes; `None` where this node is the only one.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) limits: Limits,
    pub(crate) metrics: FillMetrics,
    /// The last-read times of stored blobs, written to the database at intervals.
    pub(crate) reads: TouchBuffer<Digest>,
}

/// The other nodes of the same database.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) db: Db,
    /// The id of this node.
    pub(crate) node_id: String,
    pub(crate) peers: NodeClient,
    /// A node whose last heartbeat is older is dead.
    pub(crate) dead_after: Duration,
}
