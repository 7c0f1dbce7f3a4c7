//! Lookups of stored blobs, cached: a repeated read of a blob needs no system call and no request to find it.

use std::{
    io,
    time::{Duration, Instant},
};

use blob_store::{BlobStore, StoreError, StoredBlob, is_damage};
use moka::{Expiry, future::Cache};
use oci_types::Digest;
use shared_models::db::{
    Db,
    blobs::{self, BlobRow, BlobState},
};
use tokio::time::timeout;

/// How long a file stays open after it was opened. A deleted blob remains readable for this long.
const FILE_TTL: Duration = Duration::from_secs(60);

/// How long the location of an object is cached: after that, the blob may be in the cache tier.
const OBJECT_TTL: Duration = Duration::from_secs(5);

/// How long the object store is not queried for a blob after a failed read of that blob.
const UNREADABLE_TTL: Duration = Duration::from_secs(30);

/// How long the object store is not queried for a blob after it was unavailable, so that the next
/// request, and the fill that it starts, do not wait for the same timeout.
const UNAVAILABLE_TTL: Duration = Duration::from_secs(5);

/// How long a stored blob waits for the query of its recorded size: less than a client notices.
const SIZE_QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of cached blobs, and so of files that are kept open.
const MAX_ENTRIES: u64 = 512;

/// Finds stored blobs and caches the result.
#[derive(Clone)]
pub(crate) struct BlobLookup {
    store: BlobStore,
    db: Db,
    found: Cache<Digest, StoredBlob>,
    /// Blobs that the object store is not queried for, and for how long.
    skipped: Cache<Digest, Duration>,
}

impl BlobLookup {
    pub(crate) fn new(store: BlobStore, db: Db) -> Self {
        let found = Cache::builder().max_capacity(MAX_ENTRIES).expire_after(TtlByLocation).build();
        let skipped = Cache::builder().max_capacity(MAX_ENTRIES).expire_after(TtlIsValue).build();
        Self { store, db, found, skipped }
    }

    /// The blob, when it is stored. A blob in an unavailable storage counts as not stored: an upstream may have it.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        if let Some(found) = self.found.get(digest).await {
            return Ok(Some(found));
        }
        let found = match self.find(digest).await {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%digest, %error, "storage unavailable, falling back to upstream");
                self.skipped.insert(digest.clone(), UNAVAILABLE_TTL).await;
                None
            }
            Err(error) if error.is_damage() => {
                self.quarantine(digest, &error.to_string()).await;
                None
            }
            found => found?,
        };
        let Some(found) = found else { return Ok(None) };
        if self.is_wrong(digest, found.size()).await {
            self.quarantine(digest, &format!("wrong size: {} bytes", found.size())).await;
            return Ok(None);
        }
        self.found.insert(digest.clone(), found.clone()).await;
        Ok(Some(found))
    }

    async fn find(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        if self.skipped.contains_key(digest) {
            return Ok(self.store.get_local(digest).await?.map(StoredBlob::File));
        }
        self.store.get(digest).await
    }

    /// Whether the size of a stored blob contradicts the digest or the number of bytes that were received for it.
    async fn is_wrong(&self, digest: &Digest, size: u64) -> bool {
        if !digest.admits_size(size) {
            return true;
        }
        // A client would wait for the timeout of the query.
        if !self.db.is_available() {
            return false;
        }
        match timeout(SIZE_QUERY_TIMEOUT, blobs::find(&self.db, digest)).await {
            Ok(Ok(Some(BlobRow { state: BlobState::Stored, size: Some(received), .. }))) => received != size,
            // Without a row, or without the database, the file is all that is known.
            Ok(_) | Err(_) => false,
        }
    }

    /// Takes a stored blob that has a wrong size, or cannot be read, out of use, so that it is downloaded again. Where the
    /// file or object remains, the blob stays recorded as stored with its right size: so each lookup rejects what remains
    /// until the blob is stored anew.
    async fn quarantine(&self, digest: &Digest, reason: &str) {
        let moved = self.store.quarantine(digest).await;
        self.found.invalidate(digest).await;
        match moved {
            Ok(Some(path)) => {
                let path = path.display();
                tracing::error!(%digest, reason, %path, "moved a damaged blob to quarantine");
                if !self.store.is_shared()
                    && let Err(error) = blobs::mark_evicted(&self.db, digest).await
                {
                    tracing::warn!(%digest, %error, "failed to record that a blob is no longer stored");
                }
            }
            Ok(None) => {
                tracing::error!(%digest, reason, "stored blob is damaged, downloading it again");
                self.skipped.insert(digest.clone(), UNREADABLE_TTL).await;
            }
            Err(error) => {
                tracing::error!(%digest, reason, %error, "failed to quarantine a damaged blob");
            }
        }
    }

    /// Handles an error while a stored file was read: a damaged file is moved to quarantine.
    pub(crate) fn read_failed(&self, digest: &Digest, error: &io::Error) {
        let reason = error.to_string();
        if is_damage(error) {
            let (lookup, digest) = (self.clone(), digest.clone());
            tokio::spawn(async move { lookup.quarantine(&digest, &reason).await });
        } else {
            tracing::error!(%digest, error = reason, "failed to read a stored blob");
        }
    }

    /// Records that a blob was found and could not be read.
    pub(crate) async fn mark_unreadable(&self, digest: &Digest) {
        self.skipped.insert(digest.clone(), UNREADABLE_TTL).await;
        self.found.invalidate(digest).await;
    }

    /// Records that a blob was stored: earlier failures no longer count.
    pub(crate) async fn mark_stored(&self, digest: &Digest) {
        self.skipped.invalidate(digest).await;
    }
}

/// The lifetime of an entry depends on where the blob is.
struct TtlByLocation;

impl Expiry<Digest, StoredBlob> for TtlByLocation {
    fn expire_after_create(&self, _: &Digest, at: &StoredBlob, _: Instant) -> Option<Duration> {
        Some(match at {
            StoredBlob::File(_) => FILE_TTL,
            StoredBlob::Object(_) => OBJECT_TTL,
        })
    }
}

/// The value of an entry is its lifetime.
struct TtlIsValue;

impl Expiry<Digest, Duration> for TtlIsValue {
    fn expire_after_create(&self, _: &Digest, ttl: &Duration, _: Instant) -> Option<Duration> {
        Some(*ttl)
    }

    fn expire_after_update(
        &self,
        _: &Digest,
        ttl: &Duration,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*ttl)
    }
}
