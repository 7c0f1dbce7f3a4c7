//! Stored blobs in a bucket of an S3-compatible object store, with a local cache.
//!
//! A blob is downloaded to a partial file on the local disk, because clients read it there during
//! the download. Its parts are uploaded at the same time ([`Upload`]); the commit completes the
//! object. The file then moves to the local cache or is removed.
//!
//! Every request ends within [`S3Timeouts`]. One that fails is [`StoreError::Unavailable`]; callers then continue as if
//! the blob were not stored.
//!
//! A process aborts the multipart uploads that an earlier one on the same disk did not complete. If
//! the disk or the response with the upload id was lost, only a lifecycle rule of the bucket
//! removes them (`AbortIncompleteMultipartUpload`).

mod bucket;
mod commit;
mod config;
mod connect;
mod object;
mod orphans;
mod presign;
mod read;
mod retry;
mod upload;
mod warm;

use std::{future::Future, path::Path, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use oci_types::Digest;
use tokio::runtime::Handle;

pub(crate) use self::connect::Customize;
use self::{bucket::Bucket, upload::UploadContext, warm::CacheWarmer};
pub use self::{
    config::{AccessKeys, Addressing, S3Config, S3Timeouts},
    object::BlobObject,
    presign::Presigner,
    upload::Upload,
};
use crate::{
    BlobMeta, Partial, StoreError,
    cache::Cache,
    disk::Disk,
    durable::create_directory,
    layout::{s3_directory, upload_records},
    stream::spawn_on_first_poll,
};

/// Capacity of the channel of a list.
const LIST_BUFFER: usize = 256;

/// The object store behind a local disk.
pub(crate) struct S3Backend {
    bucket: Arc<Bucket>,
    disk: Arc<Disk>,
    cache: Arc<Cache>,
    warmer: CacheWarmer,
    uploads: UploadContext,
    /// Runs every request, regardless of the runtime of the caller: connections belong to a
    /// runtime.
    runtime: Handle,
}

impl S3Backend {
    /// Opens the backend with its files under `root`. Blocks, but sends no request.
    pub(crate) fn open(
        config: &S3Config,
        root: &Path,
        cache_size: Option<u64>,
        runtime: &Handle,
        customize: Customize<'_>,
    ) -> Result<Arc<Self>, StoreError> {
        config.check()?;
        let bucket = Arc::new(Bucket::new(config, customize)?);
        let directory = s3_directory(root);
        let disk = Disk::open(&directory, runtime)?;
        let records = upload_records(&directory);
        create_directory(&records)?;
        let uploads = UploadContext::new(Arc::clone(&bucket), config.part_size, records, runtime.clone());
        let cache = Arc::new(Cache::new(Arc::clone(&disk), cache_size.unwrap_or(0)));
        let (warmer, runtime) = (CacheWarmer::new(), runtime.clone());
        let s3 = Arc::new(Self { bucket, disk, cache, warmer, uploads, runtime });
        s3.runtime.spawn(Arc::clone(&s3.cache).load());
        let orphans = Arc::clone(&s3);
        s3.runtime.spawn(async move { orphans.abort_orphans().await });
        Ok(s3)
    }

    pub(crate) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Runs a method on the runtime of the store, to completion.
    pub(crate) async fn run<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.spawn(work(Arc::clone(self))).await.map_err(|_| StoreError::Stopped)?
    }

    /// Properties of a blob in the bucket; `None` if it is not there.
    async fn head(&self, digest: &Digest) -> Result<Option<BlobMeta>, StoreError> {
        let key = self.bucket.key(digest);
        let found = self.bucket.head(&key).await.map_err(|error| error.context("find", &key))?;
        Ok(found.and_then(|object| self.bucket.blob(&object)))
    }

    /// As `head`, for callers with an alternative: fails at once while the circuit is open.
    pub(crate) async fn head_if_available(&self, digest: &Digest) -> Result<Option<BlobMeta>, StoreError> {
        let key = self.bucket.key(digest);
        let found = self.bucket.head_if_available(&key).await.map_err(|error| error.context("find", &key))?;
        Ok(found.and_then(|object| self.bucket.blob(&object)))
    }

    /// Deletes a blob from the bucket and the cache of this node; `false` if it was not in the bucket.
    pub(crate) async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        let found = self.head(digest).await?.is_some();
        if found {
            let key = self.bucket.key(digest);
            self.bucket.delete(&key).await.map_err(|error| error.context("delete", &key))?;
        }
        let (cache, digest) = (Arc::clone(&self.cache), digest.clone());
        self.disk.blocking(move |_| cache.delete(&digest)).await?;
        Ok(found)
    }

    /// Checks that the bucket can be listed.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        self.bucket.check().await.map_err(|error| error.context("list", "the bucket"))
    }

    /// Every blob in the bucket, unordered. An error is the last item.
    pub(crate) fn list(self: &Arc<Self>) -> BoxStream<'static, Result<BlobMeta, StoreError>> {
        let s3 = Arc::clone(self);
        spawn_on_first_poll(LIST_BUFFER, move |sender| {
            s3.runtime.clone().spawn(async move {
                let mut objects = s3.bucket.list();
                while let Some(object) = objects.next().await {
                    let blob = match object {
                        Ok(object) => s3.bucket.blob(&object).map(Ok),
                        Err(error) => Some(Err(error.context("list", "blobs"))),
                    };
                    if let Some(blob) = blob
                        && sender.send(blob).await.is_err()
                    {
                        return;
                    }
                }
            });
        })
    }

    /// Releases the partial file of a blob that is downloaded to the cache.
    pub(crate) fn stop_warming(&self, digest: &Digest) {
        self.warmer.stop(digest);
    }

    pub(crate) fn start_upload(&self, partial: &Partial) -> Option<Upload> {
        Upload::start(&self.uploads, partial)
    }
}
