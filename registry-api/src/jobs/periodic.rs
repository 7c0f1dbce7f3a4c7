//! What each process does at intervals: no jobs, since it costs little and repeating it in several processes does no harm.

use std::{future::Future, time::Duration};

use oci_types::Millis;
use shared_models::{
    Change, FailureEdge,
    db::{blobs, jobs, repositories},
};
use tokio::time::{MissedTickBehavior, interval};

use super::runner::max_retry_delay;
use crate::state::AppState;

/// The interval of writing last-use times.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// The interval of deleting what has expired: pending links, dead nodes, the history of jobs.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(300);

/// The maximum number of jobs that one transaction deletes.
const JOBS_PER_DELETE: i64 = 500;

/// Does periodic work until `shutdown` resolves; then writes last-use times once more.
pub(crate) async fn run(state: &AppState, shutdown: impl Future<Output = ()>) {
    let mut flush = interval(FLUSH_INTERVAL);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut expiry = interval(EXPIRY_INTERVAL);
    let failures = FailureEdge::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = flush.tick() => flush_last_use(state, &failures).await,
            _ = expiry.tick() => {
                prune_dead_nodes(state).await;
                expire_pending_links(state).await;
                delete_ended_jobs(state).await;
                reset_jobs_ahead(state).await;
            }
        }
    }
    flush_last_use(state, &failures).await;
}

/// Writes when repositories were last pulled, and when clients were last redirected to the object store for blobs.
async fn flush_last_use(state: &AppState, failures: &FailureEdge) {
    let AppState { db, last_pulls, last_reads, .. } = state;
    let pulls = last_pulls.flush(|pulls| repositories::touch_pulls(db, pulls)).await;
    let reads = last_reads.flush(|reads| blobs::touch_read(db, reads)).await;
    match failures.change(&pulls.and(reads)) {
        Some(Change::Began(error)) => tracing::warn!(%error, "failed to flush last-use times"),
        Some(Change::Ended) => tracing::info!("flushing of last-use times resumed"),
        None => {}
    }
}

/// Deletes pending links, and their blobs, that no manifest has named within `pending_ttl`.
async fn expire_pending_links(state: &AppState) {
    let before = Millis::now().before(state.config.settings.pending_ttl);
    match blobs::expire_pending(&state.db, before).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "deleted pending blobs that no manifest references"),
        Err(error) => tracing::warn!(%error, "failed to expire pending blobs"),
    }
}

/// Deletes jobs that ended longer ago than the history is kept, in several short transactions.
async fn delete_ended_jobs(state: &AppState) {
    let before = Millis::now().before(state.config.jobs.history);
    loop {
        match jobs::delete_ended(&state.db, before, JOBS_PER_DELETE).await {
            Ok(deleted) if i64::try_from(deleted) == Ok(JOBS_PER_DELETE) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to delete ended jobs");
                return;
            }
        }
    }
}

/// Makes jobs due that a clock that was ahead has put off.
async fn reset_jobs_ahead(state: &AppState) {
    let settings = &state.config.jobs;
    match jobs::reset_ahead(&state.db, settings.lease, max_retry_delay(settings), Millis::now()).await {
        Ok(0) => {}
        Ok(count) => {
            tracing::warn!(count, "jobs were queued, claimed or put off with a clock that was ahead")
        }
        Err(error) => tracing::warn!(%error, "failed to look for jobs of a clock that was ahead"),
    }
}

/// Deletes content nodes that have been dead for long.
async fn prune_dead_nodes(state: &AppState) {
    match state.nodes.prune_dead_nodes().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "deleted expired content nodes"),
        Err(error) => tracing::warn!(%error, "failed to delete expired content nodes"),
    }
}
