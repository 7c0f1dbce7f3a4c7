//! Partial files on the local disk: opened, then committed or discarded.

use std::{
    collections::HashSet,
    fs, io,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use backon::{ExponentialBuilder, Retryable};
use oci_types::Digest;
use tokio::time::Instant;

use super::{Disk, usage::SizeChange, walk};
use crate::{
    Partial, PartialFile, PartialId, StoreError,
    durable::{create_directories, file_length, sync_directory},
    error::IoContext,
    layout::Shard,
    partial::{LockAttempt, PartialLock, Stage, WeakPartial, remove_directory},
};

/// How long a locked partial file is retried. A download of this process that is ending releases
/// the lock within this time; another process holds it longer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
const LOCK_BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(5))
    .with_max_delay(Duration::from_millis(20))
    .without_max_times()
    .with_jitter();

impl Disk {
    /// Runs `attempt` on the blocking pool, and repeats it for a short time while the partial file is locked.
    pub(crate) async fn retry_while_busy<T: Send + 'static>(
        self: &Arc<Self>,
        attempt: impl Fn(&Self) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        (|| self.blocking(attempt.clone()))
            .retry(LOCK_BACKOFF)
            .when(|error| matches!(error, StoreError::Busy { .. }) && Instant::now() < deadline)
            .await
    }

    /// Opens or creates a partial file. One that this process has open is shared.
    pub(crate) fn open_partial(&self, id: &PartialId, size: Option<u64>) -> Result<Partial, StoreError> {
        if let Some(partial) = self.shared_partial(id) {
            if let Some(size) = size {
                partial.set_size(Some(size));
            }
            return Ok(partial);
        }
        let directory = self.layout.partial(id);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The directory of partial files was removed while the process ran.
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_directories(&directory)?,
            Err(error) => return Err(StoreError::from_io("create directory", &directory, error)),
        }
        match PartialLock::try_acquire(&directory)? {
            LockAttempt::Acquired(lock) => {
                let file =
                    PartialFile::open(id, &directory, size, self.keep_free.load(Ordering::Relaxed), lock)?;
                let partial = Partial::new(file, &self.runtime);
                let mut open = self.open.lock();
                open.retain(|_, other| other.is_alive());
                open.insert(id.clone(), partial.downgrade());
                Ok(partial)
            }
            // No directory: its holder has just removed it.
            LockAttempt::Busy | LockAttempt::NoDirectory => Err(StoreError::Busy { path: directory }),
        }
    }

    /// Makes the partial file a stored blob: truncates it to `size` bytes, syncs it, renames it and
    /// closes it. An existing blob of that size is kept. A repeated commit only completes what is
    /// missing.
    pub(crate) fn commit(&self, file: &PartialFile, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let (shard, blob) = (Shard::of(digest), self.layout.blob(digest));
        let mut stage = file.stage_mut();
        match *stage {
            Stage::Discarded => return Err(StoreError::Closed),
            Stage::Committed => return Ok(()),
            Stage::Renamed => {}
            Stage::Open => {
                file.truncate_and_sync(size)?;
                create_directories(&self.layout.shard(shard))?;
                self.usage.change(shard, || rename(file, &blob, digest, size))?;
                *stage = Stage::Renamed;
            }
        }
        sync_directory(&self.layout.shard(shard))?;
        sync_directory(file.directory())?;
        *stage = Stage::Committed;
        self.forget(file);
        if let Err(error) = remove_directory(file.directory()) {
            tracing::warn!(%digest, %error, "blob stored; failed to remove the directory of its partial file");
        }
        Ok(())
    }

    /// Closes and removes a partial file whose blob is stored elsewhere. Open readers are not affected.
    pub(crate) fn close(&self, file: &PartialFile) -> Result<(), StoreError> {
        let mut stage = file.stage_mut();
        if matches!(*stage, Stage::Committed | Stage::Discarded) {
            return Ok(());
        }
        *stage = Stage::Committed;
        self.forget(file);
        remove_directory(file.directory())
    }

    /// Closes and removes a partial file, if there is one. Open readers are not affected.
    pub(crate) fn discard(&self, id: &PartialId) -> Result<(), StoreError> {
        let directory = self.layout.partial(id);
        if let Some(partial) = self.shared_partial(id) {
            let mut stage = partial.blocking().stage_mut();
            if *stage == Stage::Open {
                remove_directory(&directory)?;
                *stage = Stage::Discarded;
                self.forget(partial.blocking());
                return Ok(());
            }
        }
        match PartialLock::try_acquire(&directory)? {
            LockAttempt::Acquired(_lock) => remove_directory(&directory),
            LockAttempt::NoDirectory => Ok(()),
            LockAttempt::Busy => Err(StoreError::Busy { path: directory }),
        }
    }

    /// Removes partial files that were not written for `max_age`, except those in `keep` and those that are locked.
    /// Returns the removed ones.
    pub(crate) fn sweep_partials(
        &self,
        max_age: Duration,
        keep: &HashSet<PartialId>,
    ) -> Result<Vec<PartialId>, StoreError> {
        let mut removed = Vec::new();
        for (id, directory, written_at) in walk::partials(&self.layout)? {
            let age = SystemTime::now().duration_since(written_at).unwrap_or_default();
            if age < max_age || keep.contains(&id) {
                continue;
            }
            if let LockAttempt::Acquired(_lock) = PartialLock::try_acquire(&directory)? {
                remove_directory(&directory)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }

    /// Whether this process has the partial file open. Does not block.
    pub(crate) fn has_open_partial(&self, id: &PartialId) -> bool {
        self.open.lock().get(id).is_some_and(WeakPartial::is_alive)
    }

    fn shared_partial(&self, id: &PartialId) -> Option<Partial> {
        let partial = self.open.lock().get(id).and_then(WeakPartial::upgrade)?;
        (partial.blocking().stage() == Stage::Open).then_some(partial)
    }

    /// A newer partial file of the same identity stays registered.
    fn forget(&self, file: &PartialFile) {
        let mut open = self.open.lock();
        if open.get(file.id()).is_some_and(|other| other.is(file)) {
            open.remove(file.id());
        }
    }
}

fn rename(file: &PartialFile, blob: &Path, digest: &Digest, size: u64) -> Result<SizeChange, StoreError> {
    let before = file_length(blob)?;
    if before == Some(size) {
        return Ok(SizeChange { before: size, after: size });
    }
    if let Some(length) = before {
        tracing::error!(%digest, length, size, "stored blob has a wrong length: disk corruption; replacing it");
    }
    let data = file.data_path();
    fs::rename(&data, blob).context("rename", &data)?;
    Ok(SizeChange { before: before.unwrap_or(0), after: size })
}
