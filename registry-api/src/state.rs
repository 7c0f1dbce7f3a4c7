//! The state that all requests and jobs share. Data alone: what is done with it is in `pull`, `record` and `jobs`.

use std::sync::Arc;

use internal_api::NodeClient;
use oci_types::{Digest, Tag};
use shared_models::{
    TouchBuffer,
    db::{Db, repositories::RepositoryKey},
};
use tokio::runtime::Handle;

use crate::{
    access::Authorize,
    answer::{BlobResult, DigestResult, TagCheckProgress},
    caches::Caches,
    config::Config,
    error::ApiError,
    job_queue::JobQueue,
    known_referrers::KnownReferrers,
    known_tags::KnownTags,
    metrics::ApiMetrics,
    placement::NodeSelector,
    presigned::PresignedUrls,
    resolve::Resolver,
    single_flight::SingleFlight,
};

/// The state of the service.
pub(crate) struct AppState {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) authorize: Authorize,
    pub(crate) resolver: Resolver,
    pub(crate) caches: Caches,
    pub(crate) flights: Flights,
    pub(crate) nodes: NodeSelector,
    pub(crate) presigned: PresignedUrls,
    pub(crate) node_client: NodeClient,
    pub(crate) metrics: ApiMetrics,
    pub(crate) jobs: JobQueue,
    /// The last pull of each repository, until it is written to the database.
    pub(crate) last_pulls: TouchBuffer<RepositoryKey>,
    /// The last redirect to the object store for each blob, until it is written to the database.
    pub(crate) last_reads: TouchBuffer<Digest>,
}

/// The requests to upstreams that are in flight, with everything that follows from their answers.
pub(crate) struct Flights {
    /// Checks of tags.
    pub(crate) tags: SingleFlight<(RepositoryKey, Tag), TagCheckProgress>,
    /// Fetches and confirmations of manifests by digest.
    pub(crate) manifests: SingleFlight<(RepositoryKey, Digest), DigestResult>,
    /// Confirmations of blobs.
    pub(crate) blobs: SingleFlight<(RepositoryKey, Digest), BlobResult>,
    /// Fetches of tag lists.
    pub(crate) tag_lists: SingleFlight<(RepositoryKey, usize), Result<Arc<KnownTags>, ApiError>>,
    /// Fetches of referrers.
    pub(crate) referrers: SingleFlight<(RepositoryKey, Digest), Result<Arc<KnownReferrers>, ApiError>>,
}

impl AppState {
    /// The state at the start. To be called on the main runtime, where the work of flights runs.
    ///
    /// # Errors
    /// The HTTP client for content nodes cannot be built.
    pub(crate) fn new(
        mut config: Config,
        db: Db,
        metrics: ApiMetrics,
        authorize: Authorize,
    ) -> Result<Self, reqwest::Error> {
        let runtime = Handle::current();
        let settings = config.settings.clone();
        let upstreams = std::mem::take(&mut config.upstreams);
        let namespaces = std::mem::take(&mut config.namespaces);
        Ok(Self {
            authorize,
            resolver: Resolver::new(upstreams, namespaces),
            caches: Caches::new(&settings),
            flights: Flights {
                tags: SingleFlight::new(runtime.clone()),
                manifests: SingleFlight::new(runtime.clone()),
                blobs: SingleFlight::new(runtime.clone()),
                tag_lists: SingleFlight::new(runtime.clone()),
                referrers: SingleFlight::new(runtime),
            },
            nodes: NodeSelector::new(&config, db.clone()),
            presigned: PresignedUrls::new(config.presigner.take(), settings.cache_max_age),
            node_client: NodeClient::new(Arc::clone(&config.link_keys))?,
            metrics,
            jobs: JobQueue::new(db.clone()),
            last_pulls: TouchBuffer::default(),
            last_reads: TouchBuffer::default(),
            config,
            db,
        })
    }
}
