//! Background work: queued in the database, run by one process at a time, retried with back-off. One file a kind.

mod complete_image;
pub(crate) mod periodic;
mod runner;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared_models::db::jobs::Progress;

use crate::{
    job_queue::{CompleteImage, QueuedJob},
    state::AppState,
};

/// Runs the jobs of all kinds until `shutdown` resolves.
pub(crate) async fn run(state: Arc<AppState>, shutdown: impl Future<Output = ()>) {
    runner::run::<CompleteImage>(state, shutdown).await;
}

/// A kind of background work.
pub(crate) trait Job: QueuedJob {
    /// Runs the job. Dropped when the job is cancelled, its time limit is over, its lease is lost or the process ends;
    /// except in the first case it is run again.
    fn run(&self, context: &JobContext) -> impl Future<Output = Result<(), JobError>> + Send;
}

/// What a running job has.
pub(crate) struct JobContext {
    pub(crate) state: Arc<AppState>,
    pub(crate) progress: JobProgress,
}

/// The progress of a running job, for operators.
#[derive(Debug, Default)]
pub(crate) struct JobProgress {
    done: AtomicU64,
    /// 0 while it is unknown.
    total: AtomicU64,
}

impl JobProgress {
    /// Sets the number of units of work.
    pub(crate) fn set_total(&self, total: usize) {
        self.total.store(u64::try_from(total).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a unit of work that is done.
    pub(crate) fn add_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Progress> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| Progress { done: self.done.load(Ordering::Relaxed), total })
    }
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    /// Another attempt may succeed.
    #[error("{reason}")]
    Retry {
        /// What failed.
        reason: String,
        /// When, where that is known.
        after: Option<Duration>,
    },
    /// No attempt can succeed.
    #[error("{0}")]
    Permanent(String),
}
