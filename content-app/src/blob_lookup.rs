//! Stored blobs that were looked up lately: a warm read costs no system call and no question to find its bytes.

use std::time::Duration;

use blob_store::{BlobStore, StoreError, StoredAt};
use moka::{Expiry, future::Cache};
use oci_types::Digest;

/// How long a file stays open after it was opened. A blob that was removed can be read for this long.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// How long a blob in a bucket is read there without another look: it may be in the cache tier by then.
const FOUND_FOR: Duration = Duration::from_secs(5);

/// How long a blob is not looked for in a bucket after it could not be read there.
const UNREADABLE_FOR: Duration = Duration::from_secs(30);

/// How long it is not looked for after the bucket did not answer: whoever wants it next, and the fill that this one
/// starts, do not wait for the same silence.
const AWAY_FOR: Duration = Duration::from_secs(5);

/// The most blobs that are remembered, and so the most files that are kept open.
const MOST_OPEN: u64 = 512;

/// Finds stored blobs and remembers them for a while.
#[derive(Clone)]
pub(crate) struct OpenBlobs {
    store: BlobStore,
    open: Cache<Digest, StoredAt>,
    /// Those that are not looked for in the bucket for now, and how long.
    avoided: Cache<Digest, Duration>,
}

impl OpenBlobs {
    pub(crate) fn new(store: BlobStore) -> Self {
        let open = Cache::builder().max_capacity(MOST_OPEN).expire_after(ByPlace).build();
        let avoided = Cache::builder().max_capacity(MOST_OPEN).expire_after(AsLongAsSaid).build();
        Self { store, open, avoided }
    }

    /// The blob, when it is stored. One in a storage that is away now, or was a moment ago, counts as not stored: upstream
    /// may have it.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Option<StoredAt>, StoreError> {
        if let Some(found) = self.open.get(digest).await {
            return Ok(Some(found));
        }
        if self.avoided.contains_key(digest) {
            return Ok(self.store.stored(digest).await?.map(StoredAt::File));
        }
        let found = match self.store.locate(digest).await {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%digest, "a blob is looked for upstream: {error}");
                self.avoided.insert(digest.clone(), AWAY_FOR).await;
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
        self.avoided.insert(digest.clone(), UNREADABLE_FOR).await;
        self.open.invalidate(digest).await;
    }

    /// The blob was stored now, whatever was the matter before.
    pub(crate) async fn trust(&self, digest: &Digest) {
        self.avoided.invalidate(digest).await;
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

/// What is avoided is avoided as long as was said.
struct AsLongAsSaid;

impl Expiry<Digest, Duration> for AsLongAsSaid {
    fn expire_after_create(&self, _: &Digest, said: &Duration, _: std::time::Instant) -> Option<Duration> {
        Some(*said)
    }

    fn expire_after_update(
        &self,
        _: &Digest,
        said: &Duration,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*said)
    }
}
