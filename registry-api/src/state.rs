//! The state that every request and task of this service shares.

use std::{sync::Arc, time::Duration};

use internal_api::NodeClient;
use oci_types::{Digest, RepositoryName, Tag};
use shared_models::{
    Noted,
    db::{Db, manifests::StoredManifest},
};
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    caches::Memory,
    config::Config,
    error::ApiError,
    metrics::ApiMetrics,
    placement::Nodes,
    presigned::Presigned,
    pull::{blob::BlobFlights, manifest::ManifestFlights, tag::TagFlights, tag_list::TagLists},
    resolve::Resolver,
    single_flight::Flights,
};

/// Everything that this service knows and can do.
pub(crate) struct AppState {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) resolver: Resolver,
    pub(crate) memory: Memory,
    pub(crate) tag_flights: TagFlights,
    pub(crate) manifest_flights: ManifestFlights,
    pub(crate) blob_flights: BlobFlights,
    pub(crate) tag_lists: TagLists,
    pub(crate) nodes: Nodes,
    pub(crate) presigned: Presigned,
    pub(crate) content: NodeClient,
    pub(crate) metrics: ApiMetrics,
    /// When each repository was pulled last.
    pub(crate) pulls: Noted<RepositoryName>,
    /// When a client was last sent to the object store for each blob.
    pub(crate) reads: Noted<Digest>,
    /// Rung when a task was queued here.
    pub(crate) task_queued: Notify,
}

impl AppState {
    pub(crate) fn new(mut config: Config, db: Db, metrics: ApiMetrics) -> Result<Self, reqwest::Error> {
        let runtime = Handle::current();
        let upstreams = std::mem::take(&mut config.upstreams);
        let namespaces = std::mem::take(&mut config.namespaces);
        Ok(Self {
            resolver: Resolver::new(upstreams, namespaces),
            memory: Memory::new(config.manifest_cache_bytes, config.cache_max_age, config.negative_ttl),
            tag_flights: Flights::new(runtime.clone()),
            manifest_flights: Flights::new(runtime.clone()),
            blob_flights: Flights::new(runtime.clone()),
            tag_lists: TagLists::new(runtime),
            nodes: Nodes::new(),
            presigned: Presigned::new(config.presigner.take(), config.cache_max_age),
            content: NodeClient::new(Arc::clone(&config.link_keys))?,
            metrics,
            pulls: Noted::default(),
            reads: Noted::default(),
            task_queued: Notify::new(),
            config,
            db,
        })
    }

    /// A manifest whose bytes are here, from memory or the database.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<Option<Arc<StoredManifest>>, ApiError> {
        if let Some(manifest) = self.memory.manifests.get(digest).await {
            return Ok(Some(manifest));
        }
        let Some(stored) = shared_models::db::manifests::load(&self.db, digest).await? else {
            return Ok(None);
        };
        let stored = Arc::new(stored);
        self.memory.manifests.insert(digest.clone(), Arc::clone(&stored)).await;
        Ok(Some(stored))
    }

    /// Forgets what memory says of a tag, so that the next ask reads the row.
    pub(crate) async fn forget_tag(&self, repository: &RepositoryName, tag: &Tag) {
        self.memory.tags.invalidate(&(repository.clone(), tag.clone())).await;
    }
}

/// How often statistics are written.
pub(crate) const HOUSEKEEPING: Duration = Duration::from_secs(5);
