//! Cache warming: downloads a blob to the local cache after it was read from the object store.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci_types::{Digest, Hasher};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::AbortHandle};

use super::S3Backend;
use crate::{Partial, PartialId, StoreError};

/// Maximum number of concurrent downloads. The download of a further blob is not started before its
/// next read.
const MAX_CONCURRENT: usize = 2;

/// Maximum number of bytes of one write.
const BATCH_BYTES: usize = 1024 * 1024;

/// How a download to the cache ended.
enum Download {
    Cached,
    /// Other blobs have taken the space.
    DoesNotFit,
    /// The bytes have this digest, which is not that of the blob.
    Mismatch(Digest),
}

/// The running downloads to the cache.
#[derive(Debug)]
pub(super) struct CacheWarmer {
    running: Mutex<HashMap<Digest, AbortHandle>>,
    permits: Arc<Semaphore>,
}

impl CacheWarmer {
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), permits: Arc::new(Semaphore::new(MAX_CONCURRENT)) }
    }

    /// Stops the download of a blob, to release its partial file.
    pub(super) fn stop(&self, digest: &Digest) {
        if let Some(task) = self.running.lock().remove(digest) {
            task.abort();
        }
    }
}

impl S3Backend {
    /// Downloads a blob to the cache in the background, unless it does not fit, or is downloaded already.
    pub(super) fn warm_cache(self: &Arc<Self>, digest: &Digest, size: u64) {
        if !self.cache.fits(size) || self.disk.has_open_partial(&digest.into()) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.warmer.permits).try_acquire_owned() else { return };
        let mut running = self.warmer.running.lock();
        if running.contains_key(digest) {
            return;
        }
        let (s3, wanted) = (Arc::clone(self), digest.clone());
        // The task cannot remove its entry before it is inserted: the lock is held.
        let task = self.runtime.spawn(async move {
            if let Err(error) = s3.cache_object(&wanted, size).await {
                tracing::warn!(digest = %wanted, %error, "failed to cache a blob");
            }
            s3.warmer.running.lock().remove(&wanted);
            drop(permit);
        });
        running.insert(digest.clone(), task.abort_handle());
    }

    /// Downloads a blob to the cache. A damaged object is deleted, so that the blob is downloaded from its source again.
    async fn cache_object(&self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        match self.download_to_cache(digest, size).await? {
            Download::Cached => tracing::debug!(%digest, bytes = size, "cached a blob"),
            Download::DoesNotFit => {}
            // A second read shows whether the object is damaged, or the network or this machine has changed its bytes.
            Download::Mismatch(actual) if self.actual_digest(digest, size).await? == actual => {
                let key = self.bucket.key(digest);
                self.bucket.delete(&key).await.map_err(|error| error.context("delete", &key))?;
                tracing::error!(%digest, %actual, bytes = size, "stored object has a wrong digest, deleted it");
            }
            Download::Mismatch(_) => {
                tracing::error!(%digest, bytes = size, "bytes of an object differ from read to read");
            }
        }
        Ok(())
    }

    /// The digest of the bytes of an object.
    async fn actual_digest(&self, digest: &Digest, size: u64) -> Result<Digest, StoreError> {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut chunks = self.stream(digest, 0..size);
        while let Some(chunk) = chunks.next().await.transpose()? {
            hasher.update(&chunk);
        }
        Ok(hasher.finish())
    }

    async fn download_to_cache(&self, digest: &Digest, size: u64) -> Result<Download, StoreError> {
        let id = PartialId::from(digest);
        let partial = self.disk.retry_while_busy(move |disk| disk.open_partial(&id, Some(size))).await?;
        let result = self.download_into(&partial, digest, size).await;
        if !matches!(result, Ok(Download::Cached)) {
            // Without a segment map, the bytes could not be resumed later.
            let disk = Arc::clone(&self.disk);
            let closed = partial.spawn_blocking(move |file| disk.close(file));
            closed.await.map_err(|_| StoreError::Stopped)??;
        }
        result
    }

    /// Downloads, verifies and commits the blob.
    async fn download_into(
        &self,
        partial: &Partial,
        digest: &Digest,
        size: u64,
    ) -> Result<Download, StoreError> {
        let mut chunks = self.stream(digest, 0..size);
        let mut hasher = Hasher::new(digest.algorithm());
        let (mut batch, mut offset) = (BytesMut::with_capacity(BATCH_BYTES), 0);
        loop {
            let chunk = chunks.next().await.transpose()?;
            if let Some(chunk) = &chunk {
                batch.extend_from_slice(chunk);
            }
            if batch.len() >= BATCH_BYTES || chunk.is_none() {
                let bytes = batch.split().freeze();
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                hasher = write(partial, offset, bytes, hasher).await?;
                offset += length;
            }
            if chunk.is_none() {
                break;
            }
        }
        let actual = hasher.finish();
        if actual != *digest {
            return Ok(Download::Mismatch(actual));
        }
        let cache = Arc::clone(&self.cache);
        let committed = partial.spawn_blocking(move |file| cache.commit(file, &actual, size));
        match committed.await.map_err(|_| StoreError::Stopped)?? {
            true => Ok(Download::Cached),
            false => Ok(Download::DoesNotFit),
        }
    }
}

async fn write(
    partial: &Partial,
    offset: u64,
    bytes: Bytes,
    mut hasher: Hasher,
) -> Result<Hasher, StoreError> {
    let written = partial.spawn_blocking(move |file| {
        hasher.update(&bytes);
        file.write_at(offset, &bytes).map(|()| hasher)
    });
    written.await.map_err(|_| StoreError::Stopped)?
}
