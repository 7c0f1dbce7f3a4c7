//! `/api/v1/`: the state of upstreams and of background work, for operators. Reads alone.

use actix_web::HttpResponse;
use serde::Serialize;
use shared_models::db::tasks;

use crate::{error::ApiError, metrics::state_name, state::AppState};

/// The maximum number of jobs in an answer.
const MAX_JOBS: i64 = 1_000;

#[derive(Serialize)]
struct UpstreamState {
    name: String,
    offline: bool,
    /// Seconds until the next request, while the circuit is open.
    circuit_open_for: Option<u64>,
    ratelimit_limit: Option<u64>,
    ratelimit_remaining: Option<u64>,
    /// Seconds until the end of the upstream's `Retry-After`.
    retry_after: Option<u64>,
}

/// `GET /api/v1/upstreams`
pub(super) fn upstreams(state: &AppState) -> HttpResponse {
    let mut upstreams: Vec<_> = state
        .resolver
        .upstreams()
        .map(|upstream| {
            let status = upstream.client.status();
            UpstreamState {
                name: upstream.client.name().to_owned(),
                offline: upstream.client.is_offline(),
                circuit_open_for: status.circuit_open_for.map(|left| left.as_secs()),
                ratelimit_limit: status.rate_limit.as_ref().and_then(|limit| limit.limit),
                ratelimit_remaining: status.rate_limit.as_ref().and_then(|limit| limit.remaining),
                retry_after: status.retry_after.map(|left| left.as_secs()),
            }
        })
        .collect();
    upstreams.sort_by(|one, other| one.name.cmp(&other.name));
    HttpResponse::Ok().json(upstreams)
}

#[derive(Serialize)]
struct JobState {
    id: i64,
    kind: String,
    key: String,
    state: &'static str,
    attempts: i32,
    /// When it is due, in milliseconds since the Unix epoch.
    run_at: i64,
    error: Option<String>,
}

/// `GET /api/v1/jobs`
pub(super) async fn jobs(state: &AppState) -> Result<HttpResponse, ApiError> {
    let rows = tasks::list(&state.db, MAX_JOBS).await?;
    let jobs: Vec<_> = rows
        .into_iter()
        .map(|row| JobState {
            id: row.id,
            kind: row.kind,
            key: row.key,
            state: state_name(row.state),
            attempts: row.attempts,
            run_at: row.run_at.0,
            error: row.error,
        })
        .collect();
    Ok(HttpResponse::Ok().json(jobs))
}
