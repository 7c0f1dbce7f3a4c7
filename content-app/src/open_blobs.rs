//! Stored blobs that were looked up lately: a warm read costs no system call and no question to find its bytes.

use std::time::Duration;

use blob_store::{BlobStore, StoreError, StoredAt};
use moka::{Expiry, future::Cache};
use shared_models::Digest;

/// How long a file stays open after it was opened. A blob that was removed can be read for this long.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// How long a blob in a bucket is read there without another look: it may be in the cache tier by then.
const FOUND_FOR: Duration = Duration::from_secs(5);

/// How long a blob in a bucket is not looked for there after it could not be read.
const UNREADABLE_FOR: Duration = Duration::from_secs(30);

/// The most blobs that are remembered, and so the most files that are kept open.
const MOST_OPEN: u64 = 512;

/// Finds stored blobs and remembers them for a while.
#[derive(Clone)]
pub(crate) struct OpenBlobs {
    store: BlobStore,
    open: Cache<Digest, StoredAt>,
    /// Those that were found a moment ago and could not be read.
    unreadable: Cache<Digest, ()>,
}

impl OpenBlobs {
    pub(crate) fn new(store: BlobStore) -> Self {
        let open = Cache::builder().max_capacity(MOST_OPEN).expire_after(ByPlace).build();
        let unreadable = Cache::builder().max_capacity(MOST_OPEN).time_to_live(UNREADABLE_FOR).build();
        Self { store, open, unreadable }
    }

    /// The blob, when it is stored. One in a storage that is away now, or was a moment ago, counts as not stored: upstream
    /// may have it.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Option<StoredAt>, StoreError> {
        if let Some(found) = self.open.get(digest).await {
            return Ok(Some(found));
        }
        if self.unreadable.contains_key(digest) {
            return Ok(self.store.stored(digest).await?.map(StoredAt::File));
        }
        let found = match self.store.locate(digest).await {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%digest, "a blob is looked for upstream: {error}");
                None
            }
            found => found?,
        };
        if let Some(found) = &found {
            self.open.insert(digest.clone(), found.clone()).await;
        }
        Ok(found)
    }

    /// The blob was found, and could not be read.
    pub(crate) async fn distrust(&self, digest: &Digest) {
        self.unreadable.insert(digest.clone(), ()).await;
        self.open.invalidate(digest).await;
    }
}

/// How long a blob is remembered, by where it lies.
struct ByPlace;

impl Expiry<Digest, StoredAt> for ByPlace {
    fn expire_after_create(&self, _: &Digest, at: &StoredAt, _: std::time::Instant) -> Option<Duration> {
        Some(match at {
            StoredAt::File(_) => OPEN_FOR,
            StoredAt::Object(_) => FOUND_FOR,
        })
    }
}
