//! `/api/v1/`: the state of upstreams and of background work, for operators. Reads alone.

use actix_web::HttpResponse;
use serde::Serialize;
use shared_models::db::jobs::{self, JobRow};

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
    /// The earliest time of the next attempt, in milliseconds since the Unix epoch, as all times.
    run_at: i64,
    /// How many of `total` units of work are done: of a `complete_image` job, blobs.
    done: Option<i64>,
    total: Option<i64>,
    error: Option<String>,
    created_at: i64,
    /// When it succeeded, failed or was cancelled.
    ended_at: Option<i64>,
}

impl From<JobRow> for JobState {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            key: row.key,
            state: state_name(row.state),
            attempts: row.attempts,
            run_at: row.run_at.0,
            done: row.done,
            total: row.total,
            error: row.error,
            created_at: row.created_at.0,
            ended_at: row.ended_at.map(|at| at.0),
        }
    }
}

/// `GET /api/v1/jobs`
pub(super) async fn jobs(state: &AppState) -> Result<HttpResponse, ApiError> {
    let rows = jobs::list(&state.db, MAX_JOBS).await?;
    Ok(HttpResponse::Ok().json(rows.into_iter().map(JobState::from).collect::<Vec<_>>()))
}
