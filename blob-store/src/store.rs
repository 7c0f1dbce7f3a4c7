//! The store that the services hold: one arm for each kind of storage.

use std::{collections::HashSet, fs::File, sync::Arc, time::Duration, time::SystemTime};

use oci_types::Digest;
use tokio::sync::mpsc;

use crate::{LocalStore, Partial, S3Store, StoreError, StoredObject, Upload};

/// A blob that is verified, durable and complete, opened for reading.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// Its length in bytes.
    pub size: u64,
    /// The open file; stays readable when the blob is removed meanwhile.
    pub file: Arc<File>,
}

/// Where a stored blob can be read.
#[derive(Debug, Clone)]
pub enum StoredAt {
    /// In a file on this node.
    File(StoredBlob),
    /// In a bucket.
    Object(StoredObject),
}

impl StoredAt {
    /// The blob's length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(blob) => blob.size,
            Self::Object(object) => object.size,
        }
    }
}

/// A blob that was found while listing the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When its last byte was written.
    pub modified_at: SystemTime,
}

/// How much the stored blobs take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of stored blobs on this node; partial fills are not counted.
    pub bytes: u64,
    /// Whether the blobs that were there at start are all counted by now.
    pub complete: bool,
}

/// Where blobs lie. Cheap to clone.
#[derive(Debug, Clone)]
pub enum BlobStore {
    /// A folder on a local disk.
    Local(LocalStore),
    /// A bucket, with a folder on a local disk before it.
    S3(S3Store),
}

impl BlobStore {
    /// Finds a stored blob, on this node or in the bucket; `None` when it is not stored. See
    /// [`LocalStore::stored`] and [`S3Store::locate`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: take it to be not stored. [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn locate(&self, digest: &Digest) -> Result<Option<StoredAt>, StoreError> {
        match self {
            Self::Local(store) => Ok(store.stored(digest).await?.map(StoredAt::File)),
            Self::S3(store) => store.locate(digest).await,
        }
    }

    /// Opens a stored blob that lies on this node; `None` when it does not, whether or not it is in a bucket. See
    /// [`LocalStore::stored`] and [`S3Store::kept`].
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn stored(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        match self {
            Self::Local(store) => store.stored(digest).await,
            Self::S3(store) => store.kept(digest).await,
        }
    }

    /// Whether what one node stores is stored for all.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::S3(_))
    }

    /// Begins or resumes the fill of a blob. See [`LocalStore::begin`].
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Partial, StoreError> {
        match self {
            Self::Local(store) => store.begin(digest, size).await,
            Self::S3(store) => store.begin(digest, size).await,
        }
    }

    /// The upload that goes along with a fill; `None` where nothing is uploaded. See [`S3Store::upload`].
    pub fn upload(&self, partial: &Partial) -> Option<Upload> {
        match self {
            Self::Local(_) => None,
            Self::S3(store) => Some(store.upload(partial)),
        }
    }

    /// Makes a blob that the caller has verified stored. See [`LocalStore::commit`] and [`S3Store::commit`].
    ///
    /// # Errors
    /// As [`BlobStore::commit_with`].
    pub async fn commit(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        self.commit_with(partial, size, None).await
    }

    /// Makes a blob that the caller has verified stored, with what was uploaded of it already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: to be tried again when the object store is back. [`StoreError::Short`],
    /// [`StoreError::Closed`], [`StoreError::Lost`], [`StoreError::Corrupt`], [`StoreError::NoSpace`],
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn commit_with(
        &self,
        partial: &Partial,
        size: u64,
        upload: Option<Upload>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.commit(partial, size).await,
            Self::S3(store) => store.commit(partial, size, upload).await,
        }
    }

    /// Throws a partial away. See [`LocalStore::discard`].
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.discard(digest).await,
            Self::S3(store) => store.discard(digest).await,
        }
    }

    /// Removes a stored blob; `false` when it was not stored. Who reads a file of it reads on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self {
            Self::Local(store) => store.remove(digest).await,
            Self::S3(store) => store.remove(digest).await,
        }
    }

    /// Every stored blob, in no order to rely on. See [`LocalStore::list`] and [`S3Store::list`].
    pub fn list(&self) -> mpsc::Receiver<Result<ListedBlob, StoreError>> {
        match self {
            Self::Local(store) => store.list(),
            Self::S3(store) => store.list(),
        }
    }

    /// Throws away partials that nobody has written to for long. See [`LocalStore::sweep_partials`] and
    /// [`S3Store::sweep_partials`].
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn sweep_partials(
        &self,
        older_than: Duration,
        keep: &HashSet<Digest>,
    ) -> Result<Vec<Digest>, StoreError> {
        match self {
            Self::Local(store) => store.sweep_partials(older_than, keep).await,
            Self::S3(store) => store.sweep_partials(older_than, keep).await,
        }
    }

    /// Checks that a blob could be stored now. See [`LocalStore::ready`] and [`S3Store::ready`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.ready().await,
            Self::S3(store) => store.ready().await,
        }
    }

    /// How much the stored blobs take on this node; read from memory.
    pub async fn usage(&self) -> DiskUsage {
        match self {
            Self::Local(store) => store.usage().await,
            Self::S3(store) => store.usage().await,
        }
    }
}
