//! Claims jobs and runs them, a bounded number at a time.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use oci_types::Millis;
use shared_models::{
    Change, Outage,
    db::{
        DbError,
        tasks::{self, Task},
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Job, JobContext, JobError};
use crate::{
    job_queue::{CompleteImage, QueuedJob as _},
    state::AppState,
};

/// The maximum delay of a job that another process has queued.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Runs jobs until `shutdown` resolves. Unfinished jobs go back to the queue.
pub(crate) async fn run(state: Arc<AppState>, shutdown: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(state.config.jobs.workers));
    let mut running = JoinSet::new();
    let failures = Outage::default();
    tokio::pin!(shutdown);
    loop {
        let claimed = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => claim(&state, &failures).await.map(|job| (job, permit)),
            Err(_) => None,
        };
        if let Some((job, permit)) = claimed {
            let state = Arc::clone(&state);
            running.spawn(async move {
                attempt(&state, job).await;
                drop(permit);
            });
            continue;
        }
        tokio::select! {
            () = &mut shutdown => break,
            () = state.jobs.queued() => {}
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
    running.shutdown().await;
    if let Err(error) = tasks::release_all(&state.db, &state.config.process_id).await {
        tracing::warn!(%error, "failed to release unfinished jobs; their leases will expire");
    }
}

async fn claim(state: &AppState, failures: &Outage) -> Option<Task> {
    let lease = state.config.jobs.lease;
    let claimed = tasks::claim(&state.db, &state.config.process_id, lease, Millis::now()).await;
    match failures.change(&claimed) {
        Some(Change::Began(error)) => tracing::warn!(%error, "failed to claim jobs"),
        Some(Change::Ended) => tracing::info!("claiming of jobs resumed"),
        None => {}
    }
    claimed.ok().flatten()
}

/// Runs the work of a kind.
async fn dispatch(kind: &str, payload: &str, context: &JobContext) -> Result<(), JobError> {
    match kind {
        CompleteImage::KIND => run_job::<CompleteImage>(payload, context).await,
        kind => Err(JobError::Permanent(format!("unknown kind of job: {kind}"))),
    }
}

async fn run_job<J: Job>(payload: &str, context: &JobContext) -> Result<(), JobError> {
    let job: J = serde_json::from_str(payload)
        .map_err(|error| JobError::Permanent(format!("invalid payload: {error}")))?;
    job.run(context).await
}

/// Runs a job while its lease is renewed, and records the result.
async fn attempt(state: &Arc<AppState>, job: Task) {
    let (kind, key, attempt) = (&job.kind, &job.key, job.attempts);
    let (db, worker) = (&state.db, state.config.process_id.as_str());
    let started = Instant::now();
    tracing::debug!(kind, key, attempt, "job started");
    let context = JobContext { state: Arc::clone(state) };
    let result = tokio::select! {
        result = dispatch(kind, &job.payload, &context) => result,
        () = keep_lease(state, &job) => return,
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let recorded = match result {
        Ok(()) => {
            tracing::info!(kind, key, attempt, elapsed_ms, "job completed");
            tasks::finish(db, job.id, worker).await
        }
        Err(JobError::Retry { reason, after }) if attempt < state.config.jobs.max_attempts => {
            tracing::info!(kind, key, attempt, elapsed_ms, error = reason, "job will be retried");
            let delay = after.unwrap_or_else(|| retry_delay(state, attempt));
            tasks::retry(db, job.id, worker, Millis::now().after(delay), &reason).await
        }
        Err(error) => {
            tracing::warn!(kind, key, attempt, elapsed_ms, %error, "job failed permanently");
            tasks::fail(db, job.id, worker, &error.to_string()).await
        }
    };
    if let Err(error) = recorded {
        tracing::warn!(kind, key, %error, "failed to record the result of a job");
    }
}

/// Renews the lease of a job; returns when it is lost. Another process may then run the job.
async fn keep_lease(state: &AppState, job: &Task) {
    let lease = state.config.jobs.lease;
    let (kind, key) = (&job.kind, &job.key);
    loop {
        tokio::time::sleep(lease / 3).await;
        let until = Millis::now().after(lease);
        match tasks::renew(&state.db, job.id, &state.config.process_id, until).await {
            Ok(true) | Err(DbError::Unavailable(_)) => {}
            Ok(false) => {
                tracing::warn!(kind, key, "lease of a job lost");
                return;
            }
            Err(error) => tracing::warn!(kind, key, %error, "failed to renew the lease of a job"),
        }
    }
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
