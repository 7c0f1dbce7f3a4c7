//! The queue of background work: what is queued, under which kind and key. `jobs` has what is done.

use oci_types::{Digest, Millis, RepositoryName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared_models::db::{Db, jobs};
use tokio::sync::watch;

/// The payload of a kind of job.
pub(crate) trait QueuedJob: Serialize + DeserializeOwned + Send + Sync {
    /// The name of the kind in the database, in logs and in metrics.
    const KIND: &'static str;

    /// Identifies the work: one job of a kind and key is queued or running at a time.
    fn key(&self) -> String;
}

/// Fetches the content that clients of a manifest will request next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompleteImage {
    /// The prefix of the namespace of the clients: its settings select the content.
    pub(crate) namespace: String,
    pub(crate) upstream: String,
    /// The repository at the upstream.
    pub(crate) repository: RepositoryName,
    pub(crate) manifest: Digest,
}

impl QueuedJob for CompleteImage {
    const KIND: &'static str = "complete_image";

    fn key(&self) -> String {
        format!("{}@{}@{}", self.upstream, self.repository, self.manifest)
    }
}

/// Queues jobs in the database.
pub(crate) struct JobQueue {
    db: Db,
    /// The number of jobs that this process has queued.
    queued: watch::Sender<u64>,
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
        Self { db, queued: watch::Sender::new(0) }
    }

    /// Queues a job to run now, unless one of its kind and key is queued. One that is running runs again.
    ///
    /// # Errors
    /// [`EnqueueError`].
    pub(crate) async fn enqueue<J: QueuedJob>(&self, job: &J) -> Result<(), EnqueueError> {
        let payload = serde_json::to_string(job)?;
        if jobs::enqueue(&self.db, J::KIND, &job.key(), &payload, Millis::now()).await? {
            self.queued.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Changes whenever this process has queued a job.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.queued.subscribe()
    }
}
