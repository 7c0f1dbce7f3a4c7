//! The blob store: one interface over the local disk and an optional object store.

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::stream::BoxStream;
use oci_types::Digest;
use tokio::runtime::Handle;

use crate::{
    BlobFile, BlobMeta, BlobObject, DiskUsage, Partial, PartialId, S3Config, StoreError, StoredBlob, Upload,
    disk::Disk,
    s3::{Customize, S3Backend},
};

/// Stored blobs and partial files. Cheap to clone.
///
/// Partial files are on the local disk. Stored blobs are there too, or in an object store with a local cache.
///
/// Futures may be polled on any runtime: the work is done on the one that opened the store, and continues if the future
/// is dropped.
#[derive(Clone)]
pub struct BlobStore {
    disk: Arc<Disk>,
    /// Where stored blobs are; `None` for the local disk.
    s3: Option<Arc<S3Backend>>,
}

impl BlobStore {
    /// Opens a store on the local disk: creates the data directory `root` and checks that blobs can be written. Blocks.
    /// Must be called on the main runtime, which outlives every request.
    ///
    /// # Errors
    /// [`StoreError::NoRuntime`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open_local(root: &Path) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        Ok(Self { disk: Disk::open(root, &runtime)?, s3: None })
    }

    /// Opens a store in a bucket. Its partial files and its cache of at most `cache_size` bytes are under the data
    /// directory `root`; without a size, nothing is cached. Sends no request, so that a process starts while the object
    /// store is unavailable. Blocks. Must be called on the main runtime, which outlives every request.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::NoRuntime`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open_s3(config: &S3Config, root: &Path, cache_size: Option<u64>) -> Result<Self, StoreError> {
        Self::open_s3_with(config, root, cache_size, &|builder| builder)
    }

    pub(crate) fn open_s3_with(
        config: &S3Config,
        root: &Path,
        cache_size: Option<u64>,
        customize: Customize<'_>,
    ) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        let s3 = S3Backend::open(config, root, cache_size, &runtime, customize)?;
        Ok(Self { disk: Arc::clone(s3.disk()), s3: Some(s3) })
    }

    /// Sets the free space that the disk keeps when space is reserved for partial files, in bytes.
    pub fn with_keep_free(self, bytes: u64) -> Self {
        self.disk.set_keep_free(bytes);
        self
    }

    /// Moves a stored blob on the local disk whose bytes are wrong to the directory `quarantine`, and returns its new path;
    /// `None` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn quarantine(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let digest = digest.clone();
        match self.s3.as_ref().map(|s3| Arc::clone(s3.cache())) {
            Some(cache) if !cache.is_enabled() => Ok(None),
            _ => self.disk.blocking(move |disk| disk.quarantine(&digest)).await,
        }
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether a blob stored by one node is stored for all nodes.
    pub fn is_shared(&self) -> bool {
        self.s3.is_some()
    }

    /// Opens a stored blob; `None` if it is not stored. With an object store, looks in the local cache first and sends a
    /// `HEAD` request otherwise, unless the circuit is open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: treat the blob as not stored. [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn get(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        let local = self.get_local(digest).await;
        let Some(s3) = &self.s3 else { return Ok(local?.map(StoredBlob::File)) };
        match local {
            Ok(Some(file)) => return Ok(Some(StoredBlob::File(file))),
            Ok(None) => {}
            Err(error) => tracing::warn!(%digest, %error, "failed to open a cached blob"),
        }
        let wanted = digest.clone();
        let found = s3.run(async move |s3| s3.head_if_available(&wanted).await).await?;
        Ok(found.map(|blob| StoredBlob::Object(BlobObject::new(s3, &blob))))
    }

    /// Opens a stored blob that is on the local disk; `None` if it is not, even if it is in the object store.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn get_local(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let digest = digest.clone();
        match self.s3.as_ref().map(|s3| Arc::clone(s3.cache())) {
            None => self.disk.blocking(move |disk| disk.get(&digest)).await,
            Some(cache) if cache.is_enabled() => self.disk.blocking(move |_| cache.get(&digest)).await,
            Some(_) => Ok(None),
        }
    }

    /// Properties of a stored blob, without opening it; `None` if it is not stored. With an object store, always sends a
    /// `HEAD` request, unless the circuit is open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn head(&self, digest: &Digest) -> Result<Option<BlobMeta>, StoreError> {
        let digest = digest.clone();
        match &self.s3 {
            None => self.disk.blocking(move |disk| disk.head(&digest)).await,
            Some(s3) => s3.run(async move |s3| s3.head_if_available(&digest).await).await,
        }
    }

    /// Deletes a stored blob; `false` if it was not stored. Open readers are not affected. For eviction. With an object
    /// store, other nodes keep the blob in their caches.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        let digest = digest.clone();
        match &self.s3 {
            None => self.disk.blocking(move |disk| disk.delete(&digest)).await,
            Some(s3) => s3.run(async move |s3| s3.delete(&digest).await).await,
        }
    }

    /// Lists the stored blobs, unordered. For eviction. On the local disk, a directory that cannot be read is one error
    /// item; with an object store, an error is the last item.
    pub fn list(&self) -> BoxStream<'static, Result<BlobMeta, StoreError>> {
        match &self.s3 {
            None => self.disk.list(),
            Some(s3) => s3.list(),
        }
    }

    /// Opens or creates a partial file; [`Partial::segment_map`] has what is present. One that this process has open is
    /// shared.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process has it open, [`StoreError::NoSpace`], [`StoreError::Io`],
    /// [`StoreError::Stopped`].
    pub async fn open_partial(
        &self,
        id: impl Into<PartialId>,
        size: Option<u64>,
    ) -> Result<Partial, StoreError> {
        let id = id.into();
        if let (Some(s3), Some(digest)) = (&self.s3, id.digest()) {
            s3.stop_warming(digest);
        }
        self.disk.retry_while_busy(move |disk| disk.open_partial(&id, size)).await
    }

    /// Starts to upload a blob while it is downloaded. Sends no request before [`Upload::advance`]. `None` without an
    /// object store, and for an upload session, which is uploaded by the commit.
    pub fn start_upload(&self, partial: &Partial) -> Option<Upload> {
        self.s3.as_ref()?.start_upload(partial)
    }

    /// Makes a partial file a stored blob of `size` bytes and closes it; bytes after `size` are cut off. The caller has
    /// verified the digest. `upload` is completed if there is one; a failed one is repeated. An existing blob is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again later, without an upload. [`StoreError::Closed`] if it was discarded,
    /// [`StoreError::Incomplete`], [`StoreError::SyncFailed`], [`StoreError::DigestMismatch`], also for the partial file
    /// of another blob, [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn commit(
        &self,
        partial: &Partial,
        digest: &Digest,
        size: u64,
        upload: Option<Upload>,
    ) -> Result<(), StoreError> {
        if partial.id().digest().is_some_and(|expected| expected != digest) {
            return Err(StoreError::DigestMismatch { path: partial.blocking().data_path() });
        }
        let (partial, digest) = (partial.clone(), digest.clone());
        match &self.s3 {
            None => self.disk.blocking(move |disk| disk.commit(partial.blocking(), &digest, size)).await,
            Some(s3) => s3.run(async move |s3| s3.commit(&partial, &digest, size, upload).await).await,
        }
    }

    /// Discards a partial file, if it exists. Open readers are not affected; the next [`BlobStore::open_partial`] starts
    /// with an empty file.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process has it open, [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn discard_partial(&self, id: impl Into<PartialId>) -> Result<(), StoreError> {
        let id = id.into();
        self.disk.retry_while_busy(move |disk| disk.discard(&id)).await
    }

    /// Discards partial files that were not written for `max_age`, except those in `keep` and those that a process has
    /// open, and aborts stale multipart uploads. Returns the discarded ones.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn sweep_partials(
        &self,
        max_age: Duration,
        keep: &HashSet<PartialId>,
    ) -> Result<Vec<PartialId>, StoreError> {
        if let Some(s3) = &self.s3 {
            s3.run(async |s3| {
                s3.abort_orphans().await;
                Ok(())
            })
            .await?;
        }
        let keep = keep.clone();
        self.disk.blocking(move |disk| disk.sweep_partials(max_age, &keep)).await
    }

    /// Checks that blobs can be stored: writes a small file to the local disk and lists the bucket. A node whose object
    /// store is unavailable still serves from its cache and from upstream.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.disk.blocking(Disk::probe).await?;
        match &self.s3 {
            None => Ok(()),
            Some(s3) => s3.run(async |s3| s3.check().await).await,
        }
    }

    /// Disk space of the stored blobs on this node; does no I/O.
    pub fn disk_usage(&self) -> DiskUsage {
        self.disk.usage()
    }
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BlobStore")
            .field("root", &self.disk.root())
            .field("is_shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}
