//! Claims the jobs of a kind and runs them, a bounded number at a time.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use oci_types::Millis;
use shared_models::{
    Change, FailureEdge,
    db::{
        DbError,
        jobs::{self, ClaimedJob, End, Renewal},
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Job, JobContext, JobError, JobProgress};
use crate::{config::JobSettings, state::AppState};

/// The maximum delay of a job that another process has queued.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The maximum delay of a retry that an upstream determines with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Runs the jobs of a kind until `shutdown` resolves. Unfinished jobs go back to the queue.
pub(super) async fn run<J: Job>(state: Arc<AppState>, shutdown: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(state.config.jobs.workers));
    let mut queued = state.jobs.subscribe();
    let mut running = JoinSet::new();
    let failures = FailureEdge::default();
    tokio::pin!(shutdown);
    loop {
        let claimed = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => claim::<J>(&state, &failures).await.map(|job| (job, permit)),
            Err(_) => None,
        };
        if let Some((job, permit)) = claimed {
            let state = Arc::clone(&state);
            running.spawn(async move {
                attempt::<J>(&state, job).await;
                drop(permit);
            });
            continue;
        }
        tokio::select! {
            () = &mut shutdown => break,
            _ = queued.changed() => {}
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
    running.shutdown().await;
    if let Err(error) = jobs::release_all(&state.db, &state.config.process_id).await {
        tracing::warn!(%error, "failed to release unfinished jobs; their leases will expire");
    }
}

async fn claim<J: Job>(state: &AppState, failures: &FailureEdge) -> Option<ClaimedJob> {
    let lease = state.config.jobs.lease;
    let claimed = jobs::claim(&state.db, J::KIND, &state.config.process_id, lease, Millis::now()).await;
    match failures.change(&claimed) {
        Some(Change::Began(error)) => tracing::warn!(%error, "failed to claim jobs"),
        Some(Change::Ended) => tracing::info!("claiming of jobs resumed"),
        None => {}
    }
    claimed.ok().flatten()
}

/// How an attempt ended.
enum Ending {
    Returned(Result<(), JobError>),
    Cancelled,
    LeaseLost,
}

/// Runs a job while its lease is renewed, and records the result.
async fn attempt<J: Job>(state: &Arc<AppState>, job: ClaimedJob) {
    let (kind, key, attempt) = (J::KIND, &job.key, job.attempt);
    let (db, worker) = (&state.db, state.config.process_id.as_str());
    let max_attempts = state.config.jobs.max_attempts;
    let started = Instant::now();
    tracing::debug!(kind, key, attempt, "job started");
    let context = JobContext { state: Arc::clone(state), progress: JobProgress::default() };
    let ending = if attempt > max_attempts {
        let reason =
            format!("no result after {max_attempts} attempts: the processes that ran them have ended");
        Ending::Returned(Err(JobError::Permanent(reason)))
    } else {
        tokio::select! {
            result = run_payload::<J>(&job.payload, &context) => Ending::Returned(result),
            ending = keep_lease::<J>(&context, &job) => ending,
        }
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let now = Millis::now();
    let recorded = match ending {
        Ending::LeaseLost => return,
        Ending::Cancelled => {
            tracing::info!(kind, key, attempt, elapsed_ms, "job cancelled");
            jobs::finish(db, &job, worker, End::Cancelled, now).await
        }
        Ending::Returned(Ok(())) => {
            tracing::info!(kind, key, attempt, elapsed_ms, "job completed");
            jobs::finish(db, &job, worker, End::Succeeded, now).await
        }
        Ending::Returned(Err(JobError::Retry { reason, after })) if attempt < max_attempts => {
            tracing::info!(kind, key, attempt, elapsed_ms, error = reason, "job will be retried");
            let delay = after.map_or_else(|| retry_delay(state, attempt), |after| after.min(MAX_RETRY_AFTER));
            jobs::retry(db, &job, worker, now.after(delay), &reason).await
        }
        Ending::Returned(Err(error)) => {
            tracing::warn!(kind, key, attempt, elapsed_ms, %error, "job failed permanently");
            jobs::finish(db, &job, worker, End::Failed(error.to_string()), now).await
        }
    };
    if let Err(error) = recorded {
        tracing::warn!(kind, key, %error, "failed to record the result of a job");
    }
}

async fn run_payload<J: Job>(payload: &str, context: &JobContext) -> Result<(), JobError> {
    let job: J = serde_json::from_str(payload)
        .map_err(|error| JobError::Permanent(format!("invalid payload: {error}")))?;
    let result = tokio::time::timeout(context.state.config.jobs.attempt_timeout, job.run(context)).await;
    result.unwrap_or_else(|_| {
        Err(JobError::Retry { reason: "no result within the time limit".to_owned(), after: None })
    })
}

/// Renews the lease of a job and records its progress. Returns when the lease is lost, after which another process may run
/// the job, or when the job is cancelled.
async fn keep_lease<J: Job>(context: &JobContext, job: &ClaimedJob) -> Ending {
    let JobContext { state, progress } = context;
    let lease = state.config.jobs.lease;
    let (kind, key) = (J::KIND, &job.key);
    loop {
        tokio::time::sleep(lease / 3).await;
        let until = Millis::now().after(lease);
        match jobs::renew(&state.db, job, &state.config.process_id, until, progress.get()).await {
            Ok(Renewal::Renewed) | Err(DbError::Unavailable(_)) => {}
            Ok(Renewal::Cancelled) => return Ending::Cancelled,
            Ok(Renewal::Lost) => {
                tracing::warn!(kind, key, "lease of a job lost");
                return Ending::LeaseLost;
            }
            Err(error) => tracing::warn!(kind, key, %error, "failed to renew the lease of a job"),
        }
    }
}

/// The maximum delay of a retry.
pub(super) fn max_retry_delay(settings: &JobSettings) -> Duration {
    settings.backoff_max.max(MAX_RETRY_AFTER)
}

/// The delay before the attempt after `attempt`: doubles with each one, with jitter between the half and the whole of it.
fn retry_delay(state: &AppState, attempt: i32) -> Duration {
    let policy = &state.config.jobs;
    let doublings = usize::try_from(attempt.saturating_sub(1)).unwrap_or(0);
    // backon adds up to as much again.
    let delays = ExponentialBuilder::default()
        .with_min_delay(policy.backoff_min / 2)
        .with_max_delay(policy.backoff_max / 2)
        .without_max_times()
        .with_jitter();
    delays.build().nth(doublings).unwrap_or(policy.backoff_max)
}
