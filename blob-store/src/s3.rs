//! Blobs in a bucket of an S3-compatible object store, and what is kept of them on the node.
//!
//! A blob is filled into a file on the node as on a local disk, because readers follow the fill there. Its parts
//! are uploaded meanwhile ([`Upload`]); the commit makes them an object. Then the file is kept in the cache tier,
//! or dropped.
//!
//! Every request to the object store ends within [`S3Timeouts`], and what comes of one that does not succeed is
//! [`StoreError::Unavailable`]: callers go on as if the blob were not stored.
//!
//! Uploads that a process left behind are thrown away by the next one on the same disk. One whose node lost its
//! disk, or whose beginning was never answered, is known to nobody here: that is for a lifecycle rule of the bucket
//! (`AbortIncompleteMultipartUpload`).

mod bucket;
mod circuit;
mod commit;
mod config;
mod connect;
mod error;
mod object;
mod orphans;
mod presign;
mod read;
mod upload;
mod warm;

use std::{collections::HashSet, fmt, future::Future, path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use oci_types::Digest;
use tokio::{runtime::Handle, sync::mpsc};

use self::{
    bucket::{Objects, path},
    upload::{Memory, Uploads},
    warm::Warming,
};
pub use self::{
    config::{AccessKeys, Addressing, S3Config, S3Timeouts},
    object::StoredObject,
    presign::Presigner,
    upload::Upload,
};
use crate::{
    DiskUsage, ListedBlob, LocalStore, Partial, StoreError, StoredAt, StoredBlob,
    cache::CacheTier,
    durable::make_folder,
    layout::{object_digest, object_key, s3_folder, uploads},
};

/// How many listed blobs are read ahead of whoever asked for the list.
const LIST_AHEAD: usize = 256;

/// Blobs in a bucket. Cheap to clone.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    uploads: Uploads,
    local: LocalStore,
    tier: CacheTier,
    warming: Warming,
    /// Where every request is made, whatever runtime a caller is on: connections live where they were made.
    runtime: Handle,
}

impl S3Store {
    /// Opens the store in a bucket, with its fills and its cache tier of at most `cache_size` bytes under the data
    /// folder `root`; without a size, blobs are not kept on the node. The object store is not asked for anything,
    /// so that a process starts while it is away. Blocks; to be called on the runtime that is to do the store's
    /// work, which outlives every request.
    ///
    /// # Errors
    /// [`StoreError::Settings`], [`StoreError::NoRuntime`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open(config: &S3Config, root: &Path, cache_size: Option<u64>) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        config.check()?;
        let objects = Arc::new(Objects::new(config)?);
        let folder = s3_folder(root);
        let local = LocalStore::open(&folder)?;
        let records = uploads(&folder);
        make_folder(&records)?;
        let uploads = Uploads {
            objects,
            prefix: config.prefix().to_owned(),
            part_size: config.part_size,
            records,
            runtime: runtime.clone(),
            memory: Memory::new(),
        };
        let tier = CacheTier::new(local.clone(), cache_size.unwrap_or(0), &runtime);
        let store = Self(Arc::new(Inner { uploads, local, tier, warming: Warming::new(), runtime }));
        let forgotten = Arc::clone(&store.0);
        store.0.runtime.spawn(async move { forgotten.abort_forgotten().await });
        Ok(store)
    }

    /// Finds a stored blob: on the node where it is kept there, else in the bucket; `None` when it is in neither.
    /// While the object store is known to be away, this is said at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Stopped`].
    pub async fn locate(&self, digest: &Digest) -> Result<Option<StoredAt>, StoreError> {
        match self.kept(digest).await {
            Ok(Some(blob)) => return Ok(Some(StoredAt::File(blob))),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%digest, %error, "a blob that is kept on this node cannot be opened")
            }
        }
        let wanted = digest.clone();
        let found = self.run(move |inner| async move { inner.size_unless_away(&wanted).await }).await?;
        Ok(found.map(|size| StoredAt::Object(StoredObject::new(&self.0, digest, size))))
    }

    /// Opens a blob that is kept on the node; `None` when it is not, whether or not it is in the bucket.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn kept(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        self.0.tier.open(digest).await
    }

    /// Begins or resumes the fill of a blob, on the node. See [`LocalStore::begin`].
    ///
    /// # Errors
    /// As [`LocalStore::begin`].
    pub async fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Partial, StoreError> {
        self.0.warming.stop(digest);
        self.0.local.begin(digest, size).await
    }

    /// Begins to upload a blob while it is filled. Asks nothing of the object store before there are bytes.
    pub fn upload(&self, partial: &Partial) -> Upload {
        Upload::start(&self.0.uploads, partial)
    }

    /// Makes a blob of `size` bytes stored: uploads what `upload` has not, completes it, and keeps the file in the
    /// cache tier or drops it. The caller has verified the digest over all bytes; it is verified again over what
    /// is uploaded. An object that is there already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the partial stays as it is, and the commit may be tried again, without an
    /// upload. [`StoreError::Short`], [`StoreError::Corrupt`], [`StoreError::Closed`] when it was discarded,
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn commit(
        &self,
        partial: &Partial,
        size: u64,
        upload: Option<Upload>,
    ) -> Result<(), StoreError> {
        let partial = partial.clone();
        self.run(move |inner| async move { inner.commit(&partial, size, upload).await }).await
    }

    /// Throws a partial away. See [`LocalStore::discard`]; its [`Upload`] is dropped by whoever holds it.
    ///
    /// # Errors
    /// As [`LocalStore::discard`].
    pub async fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        self.0.local.discard(digest).await
    }

    /// Removes a stored blob from the bucket and from this node; `false` when it was not in the bucket. Other
    /// nodes keep it until it makes room.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let wanted = digest.clone();
        let removed = self.run(move |inner| async move { inner.remove(&wanted).await }).await?;
        self.0.tier.remove(digest).await?;
        Ok(removed)
    }

    /// Every blob in the bucket, in no order to rely on. Ends early when the receiver is dropped, and with an
    /// error when the object store goes away.
    pub fn list(&self) -> mpsc::Receiver<Result<ListedBlob, StoreError>> {
        let (sender, receiver) = mpsc::channel(LIST_AHEAD);
        let inner = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let mut objects = inner.uploads.objects.list();
            while let Some(object) = objects.next().await {
                let blob = match object {
                    Ok(object) => {
                        object_digest(&inner.uploads.prefix, object.location.as_ref()).map(|digest| {
                            Ok(ListedBlob {
                                digest,
                                size: object.size,
                                modified_at: object.last_modified.into(),
                            })
                        })
                    }
                    Err(failure) => Some(Err(failure.during("list", "blobs"))),
                };
                if let Some(blob) = blob
                    && sender.send(blob).await.is_err()
                {
                    return;
                }
            }
        });
        receiver
    }

    /// Throws away partials that nobody has written to for long, as [`LocalStore::sweep_partials`] does, and
    /// uploads that a process left behind. An object store that is away keeps those for the next time.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn sweep_partials(
        &self,
        older_than: Duration,
        keep: &HashSet<Digest>,
    ) -> Result<Vec<Digest>, StoreError> {
        self.run(|inner| async move {
            inner.abort_forgotten().await;
            Ok(())
        })
        .await?;
        self.0.local.sweep_partials(older_than, keep).await
    }

    /// Checks that a blob could be stored and read now: the bucket answers, and the node's disk takes a file.
    /// A node whose bucket is away still serves: from its cache tier, and from upstream.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.0.local.ready().await?;
        self.run(|inner| async move {
            inner.uploads.objects.ready().await.map_err(|failure| failure.during("list", "the bucket"))
        })
        .await
    }

    /// How much the blobs take that are kept on this node.
    pub async fn usage(&self) -> DiskUsage {
        self.0.local.usage().await
    }

    async fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.0.runtime.spawn(work(Arc::clone(&self.0))).await.map_err(|_| StoreError::Stopped)?
    }
}

impl Inner {
    fn key(&self, digest: &Digest) -> Result<object_store::path::Path, StoreError> {
        path(&object_key(&self.uploads.prefix, digest))
    }

    async fn size_unless_away(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let key = self.key(digest)?;
        let size = self.uploads.objects.size_unless_away(&key).await;
        size.map_err(|failure| failure.during("find", key.as_ref()))
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let key = self.key(digest)?;
        self.uploads.objects.size(&key).await.map_err(|failure| failure.during("find", key.as_ref()))
    }

    async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        if self.size(digest).await?.is_none() {
            return Ok(false);
        }
        let key = self.key(digest)?;
        let removed = self.uploads.objects.delete(&key).await;
        removed.map(|()| true).map_err(|failure| failure.during("remove", key.as_ref()))
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("S3Store").field("prefix", &self.0.uploads.prefix).finish_non_exhaustive()
    }
}
