//! The queue of background work: what is queued, under which kind and key. `jobs` has what is done.

use oci_types::{Digest, Millis, RepositoryName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared_models::db::{Db, tasks};
use tokio::sync::Notify;

/// The payload of a kind of job.
pub(crate) trait QueuedJob: Serialize + DeserializeOwned + Send + Sync {
    /// The name of the kind in the database, in logs and in metrics.
    const KIND: &'static str;

    /// Identifies the work: one job of a kind and key is queued or running at a time.
    fn key(&self) -> String;
}

/// Fetches the content that clients of a manifest will request next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CompleteImage {
    pub(crate) repository: RepositoryName,
    pub(crate) manifest: Digest,
}

impl QueuedJob for CompleteImage {
    const KIND: &'static str = "complete_image";

    fn key(&self) -> String {
        format!("{}@{}", self.repository, self.manifest)
    }
}

/// Queues jobs in the database.
pub(crate) struct JobQueue {
    db: Db,
    queued: Notify,
}

/// Why a job was not queued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnqueueError {
    /// The payload cannot be serialized.
    #[error("invalid payload")]
    Payload(#[from] serde_json::Error),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] shared_models::db::DbError),
}

impl JobQueue {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, queued: Notify::new() }
    }

    /// Queues a job to run now, unless one of its kind and key is queued or running.
    ///
    /// # Errors
    /// [`EnqueueError`].
    pub(crate) async fn enqueue<J: QueuedJob>(&self, job: &J) -> Result<(), EnqueueError> {
        let payload = serde_json::to_string(job)?;
        if tasks::enqueue(&self.db, J::KIND, &job.key(), &payload, Millis::now()).await? {
            self.queued.notify_one();
        }
        Ok(())
    }

    /// Waits until this process has queued a job.
    pub(crate) async fn queued(&self) {
        self.queued.notified().await;
    }
}
