//! The carrying service: streams blobs to clients while it persists them.
//!
//! It never decides whether to pull: it serves a digest under a valid signed link only, and fetches from the sources that
//! registry-api has recorded for it.

mod body;
mod config;
mod error;
pub mod fill;
mod metrics;
mod node;
mod open_blobs;
mod range;
mod routes;

use std::{collections::HashMap, future::Future, sync::Arc};

use actix_web::web;
use blob_store::BlobStore;
use http_server::Readiness;
use prometheus_client::registry::Registry;
use shared_models::{Digest, Noted, db::Db};
use upstream_client::Upstream;

pub use config::{Config, FillPolicy, FinishAbandoned, UnverifiedRanges};
use fill::{Context, Fills};
use metrics::FillMetrics;
use open_blobs::OpenBlobs;
pub use routes::fills::SIGNATURE;

/// A content node: its fills, its open files and what it was told at its start.
pub struct Content {
    config: Config,
    fills: Fills,
    open: OpenBlobs,
    /// When each stored blob was read last.
    reads: Noted<Digest>,
}

/// A content node that is ready to be mounted on listeners.
#[derive(Clone)]
pub struct ContentApp(web::Data<Content>);

impl ContentApp {
    /// Prepares a node. Call it on the main runtime: fills live on it.
    pub fn new(
        config: Config,
        db: Db,
        store: BlobStore,
        upstreams: HashMap<String, Upstream>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = FillMetrics::register(registry);
        let context = Context::new(db, store.clone(), upstreams, metrics, &config.fills);
        let runtime = tokio::runtime::Handle::current();
        let fills = Fills::new(Arc::new(context), config.fills.clone(), runtime);
        Self(web::Data::new(Content { config, fills, open: OpenBlobs::new(store), reads: Noted::default() }))
    }

    /// Mounts `/content/v1/…`.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        let blob = web::resource("/content/v1/{repository:.+}/blobs/{digest}")
            .route(web::get().to(routes::blobs::get))
            .route(web::head().to(routes::blobs::get));
        config.app_data(self.0.clone()).service(blob);
    }

    /// Mounts `/internal/v1/fills…`, for the internal listener.
    pub fn configure_internal(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(self.0.clone())
            .route("/internal/v1/fills", web::get().to(routes::fills::list))
            .route("/internal/v1/fills/{digest}", web::post().to(routes::fills::start));
    }

    /// Adds the storage to what `/readyz` asks.
    pub fn readiness(&self, readiness: Readiness) -> Readiness {
        let store = self.0.fills.context.store.clone();
        readiness.with(
            "storage",
            Arc::new(move || {
                let store = store.clone();
                Box::pin(async move { store.ready().await.map_err(|error| error.to_string()) })
            }),
        )
    }

    /// Heartbeats and sweeps until `shutdown` resolves.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        node::run(&self.0, shutdown).await;
    }

    /// Ends the fills that still run; what they have is saved and taken up again at the next start.
    pub async fn stop_fills(&self) {
        self.0.fills.stop().await;
    }

    /// The fills of this node.
    pub fn fills(&self) -> &Fills {
        &self.0.fills
    }
}

impl Content {
    /// The size of a blob whose fill runs now, if it is known.
    fn running_size(&self, digest: &Digest) -> Option<u64> {
        self.fills.all().iter().find(|fill| fill.digest() == digest).and_then(|fill| fill.now().size)
    }
}
