//! Claims tasks and runs them, a few at a time.

use std::{future::Future, sync::Arc, time::Duration};

use oci_types::Millis;
use rand::RngExt;
use shared_models::{
    Change, Outage,
    db::{
        DbError,
        tasks::{self, Task},
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::complete_image;
use crate::state::AppState;

/// How long the runner sleeps when nothing rings; tasks queued by other processes wait at most this long.
const POLL: Duration = Duration::from_secs(2);

/// Why a task did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// Worth another attempt, not before `after` where that is known.
    #[error("{reason}")]
    Again { reason: String, after: Option<Duration> },
    /// Not worth another attempt.
    #[error("{0}")]
    Hopeless(String),
}

/// Runs tasks until `shutdown` resolves; what is unfinished then goes back to the queue.
pub(crate) async fn run(state: Arc<AppState>, shutdown: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(state.config.tasks.workers));
    let mut running = JoinSet::new();
    let outage = Outage::default();
    tokio::pin!(shutdown);
    loop {
        let claimed = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => claim(&state, &outage).await.map(|task| (task, permit)),
            Err(_) => None,
        };
        if let Some((task, permit)) = claimed {
            let state = Arc::clone(&state);
            running.spawn(async move {
                attempt(&state, task).await;
                drop(permit);
            });
            continue;
        }
        tokio::select! {
            () = &mut shutdown => break,
            () = state.task_queued.notified() => {}
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    running.shutdown().await;
    if let Err(error) = tasks::release_all(&state.db, &state.config.process_id).await {
        tracing::warn!("unfinished tasks keep their lease until it ends: {error}");
    }
}

async fn claim(state: &AppState, outage: &Outage) -> Option<Task> {
    let lease = state.config.tasks.lease;
    let claimed = tasks::claim(&state.db, &state.config.process_id, lease, Millis::now()).await;
    match outage.change(&claimed) {
        Some(Change::Began(error)) => tracing::warn!("no task can be claimed: {error}"),
        Some(Change::Ended) => tracing::info!("tasks can be claimed again"),
        None => {}
    }
    claimed.ok().flatten()
}

/// Runs one task with its lease renewed, and records how it ended.
async fn attempt(state: &Arc<AppState>, task: Task) {
    let worker = state.config.process_id.as_str();
    let work = async {
        match task.kind.as_str() {
            complete_image::KIND => complete_image::run(state, &task.payload).await,
            unknown => Err(TaskError::Hopeless(format!("no worker here knows tasks of the kind {unknown}"))),
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = keep_lease(state, &task) => return,
    };
    let (kind, key, attempts) = (&task.kind, &task.key, task.attempts);
    let recorded = match result {
        Ok(()) => {
            tracing::info!(kind, key, attempts, "a task is done");
            tasks::finish(&state.db, task.id, worker).await
        }
        Err(TaskError::Again { reason, after }) if attempts < state.config.tasks.max_attempts => {
            let pause = after.unwrap_or_else(|| pause(state, attempts));
            tracing::info!(kind, key, attempts, "a task is tried again later: {reason}");
            tasks::retry(&state.db, task.id, worker, Millis::now().after(pause), &reason).await
        }
        Err(error) => {
            tracing::warn!(kind, key, attempts, "a task is given up: {error}");
            tasks::fail(&state.db, task.id, worker, &error.to_string()).await
        }
    };
    if let Err(error) = recorded {
        tracing::warn!(kind, key, "how a task ended was not recorded: {error}");
    }
}

/// Returns when the lease is lost: then another process may run the task.
async fn keep_lease(state: &AppState, task: &Task) {
    let lease = state.config.tasks.lease;
    loop {
        tokio::time::sleep(lease / 3).await;
        let until = Millis::now().after(lease);
        match tasks::renew(&state.db, task.id, &state.config.process_id, until).await {
            Ok(true) | Err(DbError::Unavailable(_)) => {}
            Ok(false) => {
                tracing::warn!(kind = task.kind, key = task.key, "the lease of a task was lost");
                return;
            }
            Err(error) => {
                tracing::warn!(kind = task.kind, key = task.key, "a lease was not renewed: {error}")
            }
        }
    }
}

fn pause(state: &AppState, attempts: i32) -> Duration {
    let policy = &state.config.tasks;
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let longest = policy.backoff_min.saturating_mul(1 << doublings).min(policy.backoff_max);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}
