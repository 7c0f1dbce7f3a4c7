//! The carrying service: streams blobs to clients while it persists them.
//!
//! It never decides whether to pull: it serves a digest under a valid signed link only, and fetches from the sources that
//! registry-api has recorded for it.

mod answer;
mod blob_lookup;
mod config;
mod error;
pub mod fills;
mod metrics;
mod node;
mod range;
mod routes;
mod writer;

use std::{collections::HashMap, future::Future, sync::Arc};

use actix_web::web;
use blob_store::BlobStore;
use http_server::Readiness;
use internal_api::NodeClient;
use oci_types::Digest;
use prometheus_client::registry::Registry;
use shared_models::{Change, Noted, Outage, db::Db};
use upstream_client::Upstream;

use blob_lookup::OpenBlobs;
pub use config::{Config, FillPolicy, FinishAbandoned, Sharing, UnverifiedRanges};
use fills::{Cluster, Context, Fills};
use metrics::FillMetrics;

/// A content node: its fills and what it was told at its start.
pub struct Content {
    config: Config,
    fills: Fills,
    /// When each stored blob was read last.
    reads: Noted<Digest>,
}

/// A content node that is ready to be mounted on listeners.
#[derive(Clone)]
pub struct ContentApp(web::Data<Content>);

impl ContentApp {
    /// Prepares a node. Call it on the main runtime: fills live on it.
    ///
    /// # Errors
    /// The client for other nodes cannot be made.
    pub fn new(
        config: Config,
        db: Db,
        store: BlobStore,
        upstreams: HashMap<String, Upstream>,
        registry: &mut Registry,
    ) -> Result<Self, reqwest::Error> {
        let metrics = FillMetrics::register(registry);
        let cluster = match config.sharing {
            Sharing::Alone => None,
            Sharing::Nodes => {
                let peers = NodeClient::new(Arc::clone(&config.link_keys))?;
                let dead_after = config.heartbeat.saturating_mul(node::DEAD_AFTER);
                Some(Cluster { db: db.clone(), node_id: config.node_id.clone(), peers, dead_after })
            }
        };
        let open = OpenBlobs::new(store.clone());
        let context = Context::new(db, store, open, upstreams, metrics, cluster, &config.fills);
        let runtime = tokio::runtime::Handle::current();
        let fills = Fills::new(Arc::new(context), config.fills.clone(), runtime);
        Ok(Self(web::Data::new(Content { config, fills, reads: Noted::default() })))
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
            .service(
                web::resource("/internal/v1/fills/{digest}")
                    .route(web::post().to(routes::fills::start))
                    .route(web::get().to(routes::peers::read))
                    .route(web::head().to(routes::peers::read)),
            );
    }

    /// Adds the storage to what `/readyz` asks.
    pub fn readiness(&self, readiness: Readiness) -> Readiness {
        let (store, outage) = (self.0.fills.context.store.clone(), Arc::new(Outage::default()));
        readiness.with(
            "storage",
            Arc::new(move || {
                let (store, outage) = (store.clone(), Arc::clone(&outage));
                Box::pin(async move {
                    let ready = store.ready().await;
                    let reached = match &ready {
                        Err(error) if error.is_unavailable() => Err(error),
                        _ => Ok(()),
                    };
                    match outage.change(&reached) {
                        Some(Change::Began(error)) => tracing::warn!("the storage is away: {error}"),
                        Some(Change::Ended) => tracing::info!("the storage is back"),
                        None => {}
                    }
                    match ready {
                        // Blobs are served all the same: from this node, and from upstream.
                        Err(error) if error.is_unavailable() => Ok(()),
                        ready => ready.map_err(|error| error.to_string()),
                    }
                })
            }),
        )
    }

    /// Heartbeats and sweeps until `stopped` resolves; from `draining` on the others are told to send nothing new.
    pub async fn run(&self, draining: impl Future<Output = ()>, stopped: impl Future<Output = ()>) {
        node::run(&self.0, draining, stopped).await;
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
        self.fills.running(digest).and_then(|fill| fill.now().size)
    }
}
