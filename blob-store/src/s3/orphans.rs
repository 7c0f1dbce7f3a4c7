//! Aborting multipart uploads that no process continues.

use object_store::path::Path;

use super::{S3Backend, upload::UploadRecord};

impl S3Backend {
    /// Aborts the uploads whose process ended, and those that could not be aborted before.
    pub(crate) async fn abort_orphans(&self) {
        let records = self.uploads.records.clone();
        let found = self.runtime.spawn_blocking(move || UploadRecord::orphans(&records)).await;
        let orphans = match found {
            Ok(Ok(orphans)) => orphans,
            Ok(Err(error)) => return tracing::warn!(%error, "failed to list stale multipart uploads"),
            // The runtime is shutting down.
            Err(_) => return,
        };
        for (record, upload) in orphans {
            let Ok(key) = Path::parse(&upload.key) else { continue };
            if let Err(error) = self.bucket.abort_multipart(&key, &upload.id).await {
                return tracing::warn!(key = upload.key, %error, "failed to abort a stale multipart upload");
            }
            tracing::info!(key = upload.key, "aborted a stale multipart upload");
            // If the runtime stops first, the next process aborts the upload again.
            let _ = self.runtime.spawn_blocking(move || record.remove()).await;
        }
    }
}
