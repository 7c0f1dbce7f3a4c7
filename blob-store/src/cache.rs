//! The local cache: blobs of the object store that are kept on the local disk.

mod lru;

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use oci_types::Digest;
use parking_lot::Mutex;

use self::lru::Lru;
use crate::{BlobFile, PartialFile, StoreError, disk::Disk};

/// Precision of the read time that is saved as the mtime of a file.
const READ_TIME_PRECISION: Duration = Duration::from_secs(60);

/// Blobs on the local disk up to a total size; the least recently read ones are evicted first. An evicted blob remains
/// in the object store, and open readers are not affected. The blobs and their read times survive a restart.
///
/// Methods that are not `async` block, except [`Cache::is_enabled`] and [`Cache::fits`].
pub(crate) struct Cache {
    disk: Arc<Disk>,
    /// In bytes; 0 disables the cache.
    capacity: u64,
    lru: Mutex<Lru>,
    /// Held while blobs are added or evicted, so that two commits do not both evict for the same space.
    changing: Mutex<()>,
}

impl Cache {
    /// An empty cache of at most `capacity` bytes; [`Cache::load`] adds what is on the disk.
    pub(crate) fn new(disk: Arc<Disk>, capacity: u64) -> Self {
        Self { disk, capacity, lru: Mutex::default(), changing: Mutex::default() }
    }

    /// Whether anything is cached.
    pub(crate) fn is_enabled(&self) -> bool {
        self.capacity > 0
    }

    /// Whether a blob of `size` bytes can be cached.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.is_enabled() && size <= self.capacity
    }

    /// Adds the blobs that are on the disk, and evicts what exceeds the capacity.
    pub(crate) async fn load(self: Arc<Self>) {
        let mut blobs = self.disk.list();
        while let Some(blob) = blobs.next().await {
            match blob {
                Ok(blob) => self.lru.lock().insert_missing(&blob.digest, blob.size, blob.modified_at),
                Err(error) => tracing::warn!(%error, "failed to list cached blobs"),
            }
        }
        // The capacity may have been larger before.
        let evict = move || {
            let _changing = self.changing.lock();
            if let Err(error) = self.evict_to(self.capacity) {
                tracing::warn!(%error, "failed to evict cached blobs");
            }
        };
        // An error means that the runtime is shutting down.
        let _ = tokio::task::spawn_blocking(evict).await;
    }

    /// Opens a cached blob and records the read.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let found = self.disk.get(digest)?;
        match &found {
            Some(blob) => {
                self.lru.lock().touch(digest, blob.size);
                save_read_time(&blob.file);
            }
            None => self.lru.lock().remove(digest),
        }
        Ok(found)
    }

    /// Commits a complete partial file to the cache. Returns `false`, and leaves the partial file open, if the blob does
    /// not fit.
    pub(crate) fn commit(&self, file: &PartialFile, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        if !self.fits(size) {
            return Ok(false);
        }
        let _changing = self.changing.lock();
        self.evict_to(self.capacity - size)?;
        self.disk.commit(file, digest, size)?;
        self.lru.lock().touch(digest, size);
        Ok(true)
    }

    /// Deletes a blob from the cache, if it is there.
    pub(crate) fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        self.evict(digest)
    }

    /// Evicts blobs until at most `bytes` remain.
    fn evict_to(&self, bytes: u64) -> Result<(), StoreError> {
        // Each round removes an entry.
        loop {
            let oldest = self.lru.lock().oldest_above(bytes);
            let Some(oldest) = oldest else { return Ok(()) };
            self.evict(&oldest)?;
            tracing::debug!(digest = %oldest, "evicted a cached blob");
        }
    }

    fn evict(&self, digest: &Digest) -> Result<(), StoreError> {
        self.disk.delete(digest)?;
        self.lru.lock().remove(digest);
        Ok(())
    }
}

/// Sets the mtime of a file that is read. A failure affects only the order of eviction after a restart.
fn save_read_time(file: &File) {
    let now = SystemTime::now();
    let is_recent = |saved: SystemTime| now.duration_since(saved).is_ok_and(|age| age < READ_TIME_PRECISION);
    let saved = file.metadata().and_then(|metadata| metadata.modified());
    if !saved.is_ok_and(is_recent)
        && let Err(error) = file.set_modified(now)
    {
        tracing::debug!(%error, "failed to save the read time of a cached blob");
    }
}
