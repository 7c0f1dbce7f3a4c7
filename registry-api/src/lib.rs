//! The deciding service: manifests, tags, and redirects to content.
//!
//! It owns every decision about pulling and sends no blob bytes but those of the two constant blobs.

mod access;
mod aged_cache;
mod answer;
mod cache_status;
mod caches;
mod config;
mod error;
mod heartbeats;
mod job_queue;
mod jobs;
mod known_referrers;
mod known_tags;
mod listing;
mod metrics;
mod placement;
mod presigned;
mod pull;
mod record;
mod resolve;
mod routes;
mod single_flight;
mod state;
#[cfg(test)]
mod test_state;

use std::{future::Future, sync::Arc};

use actix_web::web;
use futures::FutureExt;
use http_server::{Readiness, Refresh};
use prometheus_client::registry::Registry as MetricRegistry;
use shared_models::db::Db;

pub use config::{
    ApiSettings, Config, ConfiguredUpstream, JobSettings, Namespace, Placement, Prefetch, Rules,
    UpstreamPolicy, WhenDeleted,
};
use metrics::ApiMetrics;
use routes::Routes;
use state::AppState;

/// The deciding service, ready to be mounted on a listener.
#[derive(Clone)]
pub struct RegistryApi(Arc<AppState>);

impl RegistryApi {
    /// Prepares the service. To be called on the main runtime, where fetches and jobs run.
    ///
    /// # Errors
    /// The HTTP client for content nodes cannot be built.
    pub fn new(config: Config, db: Db, metrics: &mut MetricRegistry) -> Result<Self, reqwest::Error> {
        let metrics = ApiMetrics::register(metrics);
        Ok(Self(Arc::new(AppState::new(config, db, metrics, access::authorize)?)))
    }

    /// Mounts `/v2/…` and `/api/v1/…`.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        config.service(Routes(Arc::clone(&self.0)));
    }

    /// Adds the database to the checks of `/readyz`.
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

    /// Updates the gauges of upstreams and jobs.
    pub fn refresh(&self) -> Refresh {
        let state = Arc::clone(&self.0);
        Arc::new(move || {
            let state = Arc::clone(&state);
            Box::pin(async move { refresh_metrics(&state).await })
        })
    }

    /// Runs jobs and periodic work until `shutdown` resolves.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let shutdown = shutdown.shared();
        let jobs = jobs::run(Arc::clone(&self.0), shutdown.clone());
        let periodic = jobs::periodic::run(&self.0, shutdown);
        tokio::join!(jobs, periodic);
    }
}

async fn refresh_metrics(state: &AppState) {
    for upstream in state.resolver.upstreams() {
        state.metrics.set_upstream(upstream.client.name(), &upstream.client.status());
    }
    if let Ok(counts) = shared_models::db::jobs::counts(&state.db).await {
        state.metrics.set_jobs(&counts);
    }
}
