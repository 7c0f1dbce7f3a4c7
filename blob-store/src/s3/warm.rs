//! Fetching a blob of the bucket to the cache tier, after somebody read it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci_types::{Digest, Hasher};
use tokio::{sync::Semaphore, task::AbortHandle};

use super::Inner;
use crate::{Partial, StoreError};

/// How many blobs are fetched at once. More are left to the next read of each.
const AT_ONCE: usize = 2;

/// How much is gathered before it is written.
const BATCH: usize = 1024 * 1024;

/// Which blobs are being fetched.
#[derive(Debug)]
pub(super) struct Warming {
    running: Mutex<HashMap<Digest, AbortHandle>>,
    permits: Arc<Semaphore>,
}

impl Warming {
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Stops fetching a blob that is to be filled: the partial is the fill's.
    pub(super) fn stop(&self, digest: &Digest) {
        if let Some(task) = self.running().remove(digest) {
            task.abort();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Digest, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Fetches the blob in the background, unless it does not fit, or that is being done.
    pub(super) fn warm(self: &Arc<Self>, digest: &Digest, size: u64) {
        if !self.tier.takes(size) || self.local.is_filling(digest) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.warming.permits).try_acquire_owned() else { return };
        let mut running = self.warming.running();
        if running.contains_key(digest) {
            return;
        }
        let (inner, wanted) = (Arc::clone(self), digest.clone());
        // It cannot end before it is noted here.
        let task = self.runtime.spawn(async move {
            inner.fetch_and_tell(&wanted, size).await;
            inner.warming.running().remove(&wanted);
            drop(permit);
        });
        running.insert(digest.clone(), task.abort_handle());
    }

    async fn fetch_and_tell(&self, digest: &Digest, size: u64) {
        match self.fetch(digest, size).await {
            Ok(()) => tracing::debug!(%digest, bytes = size, "a blob of the bucket is kept on this node now"),
            Err(StoreError::Corrupt { .. }) => {
                tracing::error!(%digest, "the bucket has other bytes than the digest of this blob says");
            }
            Err(error) => {
                tracing::warn!(%digest, "a blob of the bucket could not be kept on this node: {error}")
            }
        }
    }

    async fn fetch(&self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let partial = self.local.begin(digest, Some(size)).await?;
        let fetched = self.fetch_into(&partial, size).await;
        if fetched.is_err() {
            // Nothing says which of its bytes are there: it would only take space.
            self.local.close(&partial).await?;
        }
        fetched
    }

    async fn fetch_into(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        let mut chunks = self.stream(partial.digest(), 0..size);
        let mut hasher = Hasher::new(partial.digest().algorithm());
        let (mut batch, mut offset) = (BytesMut::with_capacity(BATCH), 0);
        loop {
            let chunk = chunks.next().await.transpose()?;
            if let Some(chunk) = &chunk {
                batch.extend_from_slice(chunk);
            }
            if batch.len() >= BATCH || chunk.is_none() {
                let bytes = batch.split().freeze();
                let length = u64::try_from(bytes.len()).unwrap_or(0);
                hasher = self.write(partial, offset, bytes, hasher).await?;
                offset += length;
            }
            if chunk.is_none() {
                break;
            }
        }
        if hasher.finish() != *partial.digest() {
            return Err(StoreError::Corrupt { path: partial.data_path() });
        }
        match self.tier.keep(partial, size).await? {
            true => Ok(()),
            false => self.local.close(partial).await,
        }
    }

    async fn write(
        &self,
        partial: &Partial,
        offset: u64,
        bytes: Bytes,
        mut hasher: Hasher,
    ) -> Result<Hasher, StoreError> {
        let partial = partial.clone();
        let write = move || {
            hasher.update(&bytes);
            partial.write_at(offset, &bytes).map(|()| hasher)
        };
        self.runtime.spawn_blocking(write).await.map_err(|_| StoreError::Stopped)?
    }
}
