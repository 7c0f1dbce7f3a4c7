//! `/livez`, `/readyz` and `/metrics`, for the internal listener of each process.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, web};
use futures::future::{BoxFuture, join_all};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Serialize;

/// Timeout of one readiness check, and of the refresh of metrics.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Checks one dependency that the process requires. The error is one sentence.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Updates metrics that are not counted as events occur.
pub type Refresh = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The named checks of `/readyz`: the database and the storage. Upstreams are not checked: a
/// registry whose upstream is unavailable still serves stored content.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
}

impl Readiness {
    /// Adds a check.
    pub fn with(mut self, name: &'static str, check: Check) -> Self {
        self.checks.push((name, check));
        self
    }

    async fn failures(&self) -> Vec<Failure> {
        let asked = self.checks.iter().map(|(name, check)| async {
            let error = match tokio::time::timeout(CHECK_LIMIT, check()).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {} s", CHECK_LIMIT.as_secs()),
            };
            Some(Failure { check: name, error })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

#[derive(Serialize)]
struct Failure {
    check: &'static str,
    error: String,
}

/// The state of the health routes.
#[derive(Clone)]
pub struct Health {
    /// The checks of `/readyz`.
    pub readiness: Readiness,
    /// Run before each response of `/metrics`.
    pub refresh: Vec<Refresh>,
    /// The metrics of `/metrics`.
    pub registry: Arc<Registry>,
}

impl Health {
    /// Mounts the three routes.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::new(self.clone()))
            .route("/livez", web::get().to(live))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(metrics));
    }
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

async fn ready(health: web::Data<Health>) -> HttpResponse {
    let failures = health.readiness.failures().await;
    if failures.is_empty() {
        return HttpResponse::Ok().content_type("text/plain").body("ready\n");
    }
    for failure in &failures {
        tracing::warn!(check = failure.check, error = failure.error, "not ready: {} failed", failure.check);
    }
    HttpResponse::ServiceUnavailable().json(failures)
}

async fn metrics(health: web::Data<Health>) -> HttpResponse {
    // A metric whose refresh times out keeps its previous value.
    let refreshed = join_all(health.refresh.iter().map(|refresh| refresh()));
    let _ = tokio::time::timeout(CHECK_LIMIT, refreshed).await.is_ok();
    let mut text = String::new();
    match encode(&mut text, &health.registry) {
        Ok(()) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
