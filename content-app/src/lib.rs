//! Streams blobs to clients while it downloads and stores them.
//!
//! A content node serves a digest only under a content link, and downloads it only from the sources that registry-api has
//! recorded for it. It makes no pull-through decisions.

mod answer;
mod backoff;
mod blob_lookup;
mod config;
mod error;
mod fills;
mod limits;
mod metrics;
mod node;
mod read_mode;
mod request;
mod routes;
mod source;
mod state;
mod writer;

use std::{collections::HashMap, future::Future, sync::Arc};

use actix_web::web;
use blob_store::BlobStore;
use http_server::Readiness;
use internal_api::NodeClient;
use prometheus_client::registry::Registry;
use shared_models::{TouchBuffer, db::Db};
use upstream_client::Upstream;

pub use config::{Config, FillPolicy, FinishAbandoned, NodeSettings, Sharing, UnverifiedRanges};

use blob_lookup::BlobLookup;
use fills::Fills;
use limits::Limits;
use metrics::FillMetrics;
use routes::{Content, Listener};
use state::{Cluster, State};

/// A content node, ready to be mounted on listeners.
#[derive(Clone)]
pub struct ContentApp(web::Data<Content>);

impl ContentApp {
    /// Creates a node. Must be called on the main runtime, on which fills run.
    ///
    /// # Errors
    /// The HTTP client for other nodes cannot be built.
    pub fn new(
        config: Config,
        db: Db,
        store: BlobStore,
        upstreams: HashMap<String, Upstream>,
        registry: &mut Registry,
    ) -> Result<Self, reqwest::Error> {
        let cluster = match config.sharing {
            Sharing::Alone => None,
            Sharing::Nodes => Some(Cluster {
                db: db.clone(),
                node_id: config.node_id.clone(),
                peers: NodeClient::new(Arc::clone(&config.link_keys))?,
                dead_after: config.node.dead_after(),
            }),
        };
        let state = Arc::new(State {
            limits: Limits::new(&config.fills, upstreams.keys()),
            blobs: BlobLookup::new(store.clone(), db.clone()),
            metrics: FillMetrics::register(registry),
            reads: TouchBuffer::default(),
            config,
            db,
            store,
            upstreams,
            cluster,
        });
        let fills = Fills::new(Arc::clone(&state), tokio::runtime::Handle::current());
        Ok(Self(web::Data::new(Content::new(state, fills))))
    }

    /// Mounts the routes for clients, `/content/v1/…`.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        routes::mount(config, &self.0, Listener::Public);
    }

    /// Mounts the routes for other processes, `/internal/v1/fills…`.
    pub fn configure_internal(&self, config: &mut web::ServiceConfig) {
        routes::mount(config, &self.0, Listener::Internal);
    }

    /// Adds the storage to the checks of `/readyz`.
    pub fn readiness(&self, readiness: Readiness) -> Readiness {
        node::with_storage_check(readiness, self.0.state.store.clone())
    }

    /// Sends heartbeats and does maintenance until `stopped` resolves. From `draining` on, the node takes no new requests.
    pub async fn run(&self, draining: impl Future<Output = ()>, stopped: impl Future<Output = ()>) {
        node::run(&self.0.state, &self.0.fills, draining, stopped).await;
    }

    /// Stops the running fills. Their bytes are saved and resumed at the next start.
    pub async fn stop_fills(&self) {
        self.0.fills.stop().await;
    }
}
