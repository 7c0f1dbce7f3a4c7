//! From a partial file to an object, part by part.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use object_store::{multipart::PartId, path::Path};
use oci_types::{Digest, Hasher};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{
    plan::PartPlan,
    record::{UploadId, UploadRecord},
};
use crate::{
    Partial, StoreError,
    layout::object_key,
    s3::{
        bucket::{Objects, path},
        error::Failure,
    },
};

/// How many parts of one blob are on their way at most, and how many bytes; one part is always allowed.
const MOST_PARTS_AT_ONCE: u64 = 4;
const MOST_BYTES_AT_ONCE: u64 = 64 * 1024 * 1024;

/// How much of all blobs is in memory at most, on its way. In units of [`UNIT`].
const MOST_UNITS_IN_ALL: u32 = 256;
const UNIT: u64 = 1024 * 1024;

/// What every upload of a store needs.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    pub(crate) objects: Arc<Objects>,
    pub(crate) prefix: String,
    pub(crate) part_size: u64,
    /// Where uploads that are under way are recorded.
    pub(crate) records: PathBuf,
    pub(crate) runtime: Handle,
    /// What of [`MOST_UNITS_IN_ALL`] is free.
    pub(crate) memory: Memory,
}

/// The memory that all uploads of a store share.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(MOST_UNITS_IN_ALL).unwrap_or(Semaphore::MAX_PERMITS))))
    }

    /// Waits until there is room for `bytes`, or for as many of them as there is room for at all.
    async fn room_for(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(MOST_UNITS_IN_ALL);
        Arc::clone(&self.0).acquire_many_owned(units).await.map_err(|_| StoreError::Stopped)
    }
}

/// Uploads one blob. What it uploads it hashes on the way, so that no object is ever completed under a digest
/// that its bytes do not have.
pub(crate) struct Uploader {
    uploads: Uploads,
    digest: Digest,
    /// `None` while a part is read on the blocking pool.
    source: Option<Source>,
    plan: PartPlan,
    offset: u64,
    multipart: Option<Multipart>,
    running: JoinSet<Result<(usize, PartId), Failure>>,
    done: BTreeMap<usize, PartId>,
}

struct Multipart {
    id: UploadId,
    path: Path,
    /// Written as soon as the id is known.
    record: Option<UploadRecord>,
    /// How many parts were begun.
    parts: usize,
}

/// The file, and the hash of what was read of it.
struct Source {
    partial: Partial,
    hasher: Hasher,
}

impl Uploader {
    pub(crate) fn new(uploads: &Uploads, partial: &Partial) -> Self {
        let digest = partial.digest().clone();
        Self {
            source: Some(Source { partial: partial.clone(), hasher: Hasher::new(digest.algorithm()) }),
            plan: PartPlan::new(uploads.part_size, partial.size()),
            uploads: uploads.clone(),
            digest,
            offset: 0,
            multipart: None,
            running: JoinSet::new(),
            done: BTreeMap::new(),
        }
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Uploads the whole parts that lie before `landed`.
    pub(crate) async fn advance(&mut self, landed: u64) -> Result<(), StoreError> {
        loop {
            let length = self.plan.length(self.multipart.as_ref().map_or(0, |multipart| multipart.parts));
            if landed.saturating_sub(self.offset) < length {
                return Ok(());
            }
            self.put_next(length).await?;
        }
    }

    /// Uploads the rest of a blob of `size` bytes and makes it an object. Small ones are written at once.
    pub(crate) async fn complete(&mut self, size: u64) -> Result<(), StoreError> {
        if self.multipart.is_none() && size <= self.plan.length(0) {
            return self.put_whole(size).await;
        }
        self.advance(size).await?;
        let rest = size.saturating_sub(self.offset);
        if rest > 0 {
            self.put_next(rest).await?;
        }
        while let Some(part) = self.running.join_next().await {
            self.part_done(part)?;
        }
        self.check()?;
        let Some(multipart) = self.multipart.take() else { return Ok(()) };
        let parts: Vec<PartId> = std::mem::take(&mut self.done).into_values().collect();
        match self.join(&multipart, parts, size).await {
            Ok(()) => self.blocking(move || multipart.record.map(UploadRecord::remove)).await.map(|_| ()),
            Err(failure) => {
                let error = failure.during("complete", &multipart.id.key);
                self.multipart = Some(multipart);
                Err(error)
            }
        }
    }

    /// Throws away what was uploaded. What the object store does not throw away now is left to the sweep.
    pub(crate) async fn abort(&mut self) {
        self.running.shutdown().await;
        let Some(multipart) = self.multipart.take() else { return };
        match self.uploads.objects.abort(&multipart.path, &multipart.id.upload).await {
            // Not removed when the runtime stops: then the sweep does it.
            Ok(()) => drop(self.blocking(move || multipart.record.map(UploadRecord::remove)).await),
            Err(failure) => {
                let error = failure.during("abort the upload of", &multipart.id.key);
                tracing::warn!(digest = %self.digest, "parts of an upload are left behind until the next sweep: {error}");
            }
        }
    }

    async fn put_whole(&mut self, size: u64) -> Result<(), StoreError> {
        let _room = self.uploads.memory.room_for(size).await?;
        let bytes = self.read(size).await?;
        self.check()?;
        let (key, path) = self.key()?;
        let objects = &self.uploads.objects;
        let written =
            objects.patiently(objects.timeouts().upload, || objects.put(&path, bytes.clone())).await;
        written.map_err(|failure| failure.during("write", &key))
    }

    async fn put_next(&mut self, length: u64) -> Result<(), StoreError> {
        let at_once = (MOST_BYTES_AT_ONCE / length.max(1)).clamp(1, MOST_PARTS_AT_ONCE);
        while u64::try_from(self.running.len()).unwrap_or(u64::MAX) >= at_once {
            let Some(part) = self.running.join_next().await else { break };
            self.part_done(part)?;
        }
        if self.multipart.is_none() {
            self.begin().await?;
        }
        let room = self.uploads.memory.room_for(length).await?;
        let bytes = self.read(length).await?;
        let multipart = self.multipart.as_mut().ok_or(StoreError::Closed)?;
        let (id, path, index) = (multipart.id.clone(), multipart.path.clone(), multipart.parts);
        multipart.parts += 1;
        let objects = Arc::clone(&self.uploads.objects);
        self.running.spawn(async move {
            let put = || objects.put_part(&path, &id.upload, index, bytes.clone());
            let part = objects.patiently(objects.timeouts().upload, put).await?;
            drop(room);
            Ok((index, part))
        });
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let (key, path) = self.key()?;
        let objects = &self.uploads.objects;
        let begun = objects.patiently(objects.timeouts().upload, || objects.begin(&path)).await;
        let id =
            UploadId { upload: begun.map_err(|failure| failure.during("begin the upload of", &key))?, key };
        let (folder, digest, written) = (self.uploads.records.clone(), self.digest.clone(), id.clone());
        // Known from here on: whoever stops us now throws it away.
        self.multipart = Some(Multipart { id, path, record: None, parts: 0 });
        let record = self.blocking(move || UploadRecord::write(&folder, &digest, &written)).await??;
        if let Some(multipart) = &mut self.multipart {
            multipart.record = Some(record);
        }
        Ok(())
    }

    /// Completes the upload. The object is what counts: the answer to an attempt that did it may be lost.
    async fn join(&self, multipart: &Multipart, parts: Vec<PartId>, size: u64) -> Result<(), Failure> {
        let objects = &self.uploads.objects;
        let complete = || objects.complete(&multipart.path, &multipart.id.upload, parts.clone());
        match objects.patiently(objects.timeouts().upload, complete).await {
            Ok(()) => Ok(()),
            Err(failure) => match objects.size(&multipart.path).await {
                Ok(Some(stored)) if stored == size => Ok(()),
                _ => Err(failure),
            },
        }
    }

    fn part_done(
        &mut self,
        part: Result<Result<(usize, PartId), Failure>, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        let part = part.map_err(|_| StoreError::Stopped)?;
        let (index, id) = part.map_err(|failure| {
            let key = self.multipart.as_ref().map_or("", |multipart| &multipart.id.key);
            failure.during("take a part of", key)
        })?;
        self.done.insert(index, id);
        Ok(())
    }

    async fn read(&mut self, length: u64) -> Result<Bytes, StoreError> {
        let mut source = self.source.take().ok_or(StoreError::Closed)?;
        let offset = self.offset;
        let (source, bytes) =
            self.blocking(move || source.read(offset, length).map(|bytes| (source, bytes))).await??;
        self.source = Some(source);
        self.offset += length;
        Ok(bytes)
    }

    /// Whether what was read is the blob.
    fn check(&self) -> Result<(), StoreError> {
        let source = self.source.as_ref().ok_or(StoreError::Closed)?;
        if source.hasher.clone().finish() == self.digest {
            return Ok(());
        }
        Err(StoreError::Corrupt { path: source.partial.data_path() })
    }

    fn key(&self) -> Result<(String, Path), StoreError> {
        let key = object_key(&self.uploads.prefix, &self.digest);
        let path = path(&key)?;
        Ok((key, path))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.uploads.runtime.spawn_blocking(work).await.map_err(|_| StoreError::Stopped)
    }
}

impl Source {
    /// Reads and hashes the next `length` bytes.
    fn read(&mut self, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let path = self.partial.data_path();
        let failed = |error: io::Error| StoreError::from_io("read", &path, error);
        let length = usize::try_from(length).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut bytes = BytesMut::zeroed(length);
        std::os::unix::fs::FileExt::read_exact_at(self.partial.file(), &mut bytes, offset).map_err(failed)?;
        self.hasher.update(&bytes);
        Ok(bytes.freeze())
    }
}
