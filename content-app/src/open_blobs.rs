//! Stored blobs that are open: a warm read costs no system call to find its file.

use std::time::Duration;

use blob_store::{BlobStore, StoreError, StoredBlob};
use moka::future::Cache;
use shared_models::Digest;

/// How long a file stays open after it was opened. A blob that was removed can be read for this long.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// The most files that are kept open.
const MOST_OPEN: u64 = 512;

/// Opens stored blobs and keeps the files open for a while.
#[derive(Clone)]
pub(crate) struct OpenBlobs {
    store: BlobStore,
    open: Cache<Digest, StoredBlob>,
}

impl OpenBlobs {
    pub(crate) fn new(store: BlobStore) -> Self {
        Self { store, open: Cache::builder().max_capacity(MOST_OPEN).time_to_live(OPEN_FOR).build() }
    }

    /// The blob, when it is stored here.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        if let Some(blob) = self.open.get(digest).await {
            return Ok(Some(blob));
        }
        let blob = self.store.stored(digest).await?;
        if let Some(blob) = &blob {
            self.open.insert(digest.clone(), blob.clone()).await;
        }
        Ok(blob)
    }
}
