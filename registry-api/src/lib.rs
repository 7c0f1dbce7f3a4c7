//! The deciding service: manifests, tags, and redirects to content.
//!
//! It owns every decision about pulling and carries no blob bytes but the two constants.

mod cache_status;
mod caches;
mod config;
mod error;
mod jobs;
mod metrics;
mod placement;
mod presigned;
mod pull;
mod record;
mod resolve;
mod routes;
mod single_flight;
mod state;

use std::{future::Future, sync::Arc, time::Duration};

use actix_web::{FromRequest, Handler, Resource, Responder, web};
use http_server::{Readiness, Refresh};
use oci_types::Millis;
use prometheus_client::registry::Registry as MetricRegistry;
use shared_models::{
    Change, Outage,
    db::{self, Db, blobs, repositories},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

pub use config::{Config, Namespace, Placement, Prefetch, Rules, TaskPolicy, UpstreamPolicy, WhenDeleted};
use metrics::ApiMetrics;
use routes::{admin, v2::V2};
use state::{AppState, HOUSEKEEPING};

/// The deciding service, ready to be mounted on a listener.
#[derive(Clone)]
pub struct RegistryApi(Arc<AppState>);

impl RegistryApi {
    /// Prepares the service. Call it on the main runtime: fetches and tasks live on it.
    ///
    /// # Errors
    /// The HTTP client for content nodes cannot be built.
    pub fn new(config: Config, db: Db, metrics: &mut MetricRegistry) -> Result<Self, reqwest::Error> {
        Ok(Self(Arc::new(AppState::new(config, db, ApiMetrics::register(metrics))?)))
    }

    /// Mounts `/v2/…` and `/api/v1/…`.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::from(Arc::clone(&self.0)))
            .service(V2(Arc::clone(&self.0)))
            .service(reads("/api/v1/upstreams", admin::upstreams))
            .service(reads("/api/v1/tasks", admin::tasks));
    }

    /// Adds the database to what `/readyz` asks.
    pub fn readiness(&self, readiness: Readiness) -> Readiness {
        let db = self.0.db.clone();
        readiness.with(
            "database",
            Arc::new(move || {
                let db = db.clone();
                Box::pin(async move { db.ping().await.map_err(|error| error.to_string()) })
            }),
        )
    }

    /// Brings the gauges of upstreams and tasks up to date.
    pub fn refresh(&self) -> Refresh {
        let state = Arc::clone(&self.0);
        Arc::new(move || {
            let state = Arc::clone(&state);
            Box::pin(async move { refresh_metrics(&state).await })
        })
    }

    /// Runs tasks and housekeeping until `shutdown` resolves.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let state = &self.0;
        let told = |mut stopped: watch::Receiver<bool>| async move {
            // A sender that is gone means the same as the word.
            let _ = stopped.wait_for(|stop| *stop).await.is_ok();
        };
        let tasks = jobs::runner::run(Arc::clone(state), told(stopped.clone()));
        let housekeeping = housekeeping(state, told(stopped));
        let stopping = async {
            shutdown.await;
            stop.send_replace(true);
        };
        tokio::join!(tasks, housekeeping, stopping);
    }
}

/// A path that is read, by `GET` and by `HEAD`.
fn reads<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path.to_owned()).route(web::get().to(handler.clone())).route(web::head().to(handler))
}

/// Between two looks for pending blobs that no manifest has named, and for content nodes that have long been dead.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(300);

async fn housekeeping(state: &AppState, shutdown: impl Future<Output = ()>) {
    let mut often = interval(HOUSEKEEPING);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seldom = interval(EXPIRY_INTERVAL);
    let last_use = LastUse { state, outage: Outage::default() };
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = often.tick() => last_use.write().await,
            _ = seldom.tick() => {
                placement::forget_dead(state).await;
                let before = Millis::now().before(state.config.pending_ttl);
                match blobs::expire_pending(&state.db, before).await {
                    Ok(0) => {}
                    Ok(expired) => tracing::info!(expired, "forgot blobs that no manifest has named"),
                    Err(error) => tracing::warn!("pending blobs could not be looked for: {error}"),
                }
            }
        }
    }
    last_use.write().await;
}

/// When repositories were pulled, and blobs read that clients were sent to the object store for, on its way to the database.
struct LastUse<'a> {
    state: &'a AppState,
    outage: Outage,
}

impl LastUse<'_> {
    async fn write(&self) {
        let AppState { db, pulls, reads, .. } = self.state;
        let pulls = pulls.write(async |pulls| repositories::touch_pulls(db, pulls).await).await;
        let reads = reads.write(async |reads| blobs::touch_read(db, reads).await).await;
        let written = pulls.and(reads);
        match self.outage.change(&written) {
            Some(Change::Began(error)) => {
                tracing::warn!("the times of the last pulls are not written: {error}");
            }
            Some(Change::Ended) => tracing::info!("the times of the last pulls are written again"),
            None => {}
        }
    }
}

async fn refresh_metrics(state: &AppState) {
    for upstream in state.resolver.upstreams() {
        state.metrics.upstream(upstream.client.name(), &upstream.client.status());
    }
    if let Ok(counts) = db::tasks::counts(&state.db).await {
        state.metrics.tasks(&counts);
    }
}
