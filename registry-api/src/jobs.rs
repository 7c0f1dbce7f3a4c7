//! Background work: queued in the database, run by one process at a time, retried with back-off. One file a kind.

mod complete_image;
pub(crate) mod periodic;
pub(crate) mod runner;

use std::{future::Future, sync::Arc, time::Duration};

use crate::{job_queue::QueuedJob, state::AppState};

/// A kind of background work.
pub(crate) trait Job: QueuedJob {
    /// Runs the job. Dropped when its lease is lost or the process ends; it is then run again.
    fn run(&self, context: &JobContext) -> impl Future<Output = Result<(), JobError>> + Send;
}

/// What a running job has.
pub(crate) struct JobContext {
    pub(crate) state: Arc<AppState>,
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
