//! Uploads that nobody will complete.

use super::{Inner, bucket::path, upload::UploadRecord};

impl Inner {
    /// Throws away the uploads that were under way when their process ended, or that could not be thrown away
    /// then.
    pub(super) async fn abort_forgotten(&self) {
        let folder = self.uploads.records.clone();
        let found = self.runtime.spawn_blocking(move || UploadRecord::forgotten(&folder)).await;
        let forgotten = match found {
            Ok(Ok(forgotten)) => forgotten,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "uploads that were left behind cannot be looked for");
            }
            Err(_) => return,
        };
        for (record, id) in forgotten {
            let Ok(key) = path(&id.key) else { continue };
            if let Err(failure) = self.uploads.objects.abort(&key, &id.upload).await {
                let error = failure.during("abort the upload of", &id.key);
                return tracing::warn!("parts of uploads are left behind until the next sweep: {error}");
            }
            tracing::info!(key = id.key, "threw away an upload that was left behind");
            // Not removed when the runtime stops: then it is done again.
            let _ = self.runtime.spawn_blocking(move || record.remove()).await;
        }
    }
}
