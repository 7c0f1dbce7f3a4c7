//! Blobs of a bucket that are kept on the node, so that they are read from its disk.

mod lru;

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use oci_types::Digest;
use tokio::runtime::Handle;

use self::lru::Lru;
use crate::{LocalStore, Partial, StoreError, StoredBlob};

/// A file's time says when it was read last; it is written again when it is off by this much.
const TIME_PRECISION: Duration = Duration::from_secs(60);

/// Blobs on the local disk, up to a number of bytes; those that were read longest ago make room. Cheap to clone.
///
/// Nothing is lost with a blob that goes: it is in the bucket. Who has it open reads on. What was kept is found
/// again after a restart, with the times at which it was read.
#[derive(Debug, Clone)]
pub(crate) struct CacheTier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local: LocalStore,
    /// In bytes; 0 when nothing is to be kept.
    size: u64,
    runtime: Handle,
    lru: Mutex<Lru>,
    /// Held while blobs come or go, so that two who make room do not make it twice.
    turn: tokio::sync::Mutex<()>,
}

impl CacheTier {
    /// The tier of at most `size` bytes that has its files in `local`. What is there is looked for in the
    /// background.
    pub(crate) fn new(local: LocalStore, size: u64, runtime: &Handle) -> Self {
        let (lru, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        let tier = Self(Arc::new(Inner { local, size, runtime: runtime.clone(), lru, turn }));
        let found = tier.clone();
        runtime.spawn(async move { found.find().await });
        tier
    }

    /// Whether a blob of `size` bytes could be kept.
    pub(crate) fn takes(&self, size: u64) -> bool {
        size <= self.0.size && self.0.size > 0
    }

    /// Opens a blob that is kept, and notes that it was read.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub(crate) async fn open(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        if self.0.size == 0 {
            return Ok(None);
        }
        let found = self.0.local.stored(digest).await?;
        match &found {
            Some(blob) => {
                self.lru().touch(digest, blob.size);
                let file = Arc::clone(&blob.file);
                self.0.runtime.spawn_blocking(move || note_read(&file));
            }
            None => self.lru().remove(digest),
        }
        Ok(found)
    }

    /// Keeps a verified blob whose partial is complete, and closes the partial; `false`, and the partial stays as
    /// it is, when it does not fit.
    ///
    /// # Errors
    /// As [`LocalStore::commit`].
    pub(crate) async fn keep(&self, partial: &Partial, size: u64) -> Result<bool, StoreError> {
        if !self.takes(size) {
            return Ok(false);
        }
        let _turn = self.0.turn.lock().await;
        self.make_room(self.0.size - size).await?;
        self.0.local.commit(partial, size).await?;
        self.lru().touch(partial.digest(), size);
        Ok(true)
    }

    /// Removes a blob, if it is kept.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        self.drop_blob(digest).await
    }

    async fn find(&self) {
        let mut list = self.0.local.list();
        while let Some(blob) = list.recv().await {
            match blob {
                Ok(blob) => self.lru().found(&blob.digest, blob.size, blob.modified_at),
                Err(error) => tracing::warn!(%error, "blobs that are kept on this node could not be found"),
            }
        }
        // The tier may have been larger when these were kept.
        let _turn = self.0.turn.lock().await;
        if let Err(error) = self.make_room(self.0.size).await {
            tracing::warn!(%error, "blobs that are kept on this node could not be removed");
        }
    }

    /// Removes blobs until those that are left have at most `bytes`.
    async fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        loop {
            let oldest = {
                let lru = self.lru();
                if lru.bytes() <= bytes { None } else { lru.oldest() }
            };
            let Some(oldest) = oldest else { return Ok(()) };
            self.drop_blob(&oldest).await?;
            tracing::debug!(digest = %oldest, "a blob made room on this node; it is in the bucket");
        }
    }

    async fn drop_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.0.local.remove(digest).await?;
        self.lru().remove(digest);
        Ok(())
    }

    fn lru(&self) -> MutexGuard<'_, Lru> {
        self.0.lru.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down that the file was read now. A disk that does not take it costs only the order after a restart.
fn note_read(file: &File) {
    let now = SystemTime::now();
    let noted = file.metadata().and_then(|metadata| metadata.modified());
    let is_close = |noted: SystemTime| now.duration_since(noted).is_ok_and(|age| age < TIME_PRECISION);
    if !noted.is_ok_and(is_close)
        && let Err(error) = file.set_modified(now)
    {
        tracing::debug!(%error, "the time of a read could not be noted");
    }
}
