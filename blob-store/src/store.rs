//! The store that the services hold: one arm for each kind of storage.

use std::{collections::HashSet, fs::File, sync::Arc, time::Duration, time::SystemTime};

use shared_models::Digest;
use tokio::sync::mpsc;

use crate::{LocalStore, Partial, StoreError};

/// A blob that is verified, durable and complete, opened for reading.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// Its length in bytes.
    pub size: u64,
    /// The open file; stays readable when the blob is removed meanwhile.
    pub file: Arc<File>,
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
    /// Bytes of stored blobs; partial fills are not counted.
    pub bytes: u64,
    /// Whether the blobs that were there at start are all counted by now.
    pub complete: bool,
}

/// Where blobs lie. Cheap to clone.
#[derive(Debug, Clone)]
pub enum BlobStore {
    /// A folder on a local disk.
    Local(LocalStore),
}

impl BlobStore {
    /// Opens a stored blob; `None` when it is not here. See [`LocalStore::stored`].
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn stored(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        match self {
            Self::Local(store) => store.stored(digest).await,
        }
    }

    /// Begins or resumes the fill of a blob. See [`LocalStore::begin`].
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Partial, StoreError> {
        match self {
            Self::Local(store) => store.begin(digest, size).await,
        }
    }

    /// Makes a blob that the caller has verified stored. See [`LocalStore::commit`].
    ///
    /// # Errors
    /// [`StoreError::Short`], [`StoreError::Closed`], [`StoreError::Lost`], [`StoreError::NoSpace`],
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn commit(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.commit(partial, size).await,
        }
    }

    /// Throws a partial away. See [`LocalStore::discard`].
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.discard(digest).await,
        }
    }

    /// Removes a stored blob; `false` when it was not here. Who reads it reads on.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self {
            Self::Local(store) => store.remove(digest).await,
        }
    }

    /// Every stored blob, in no order to rely on. See [`LocalStore::list`].
    pub fn list(&self) -> mpsc::Receiver<Result<ListedBlob, StoreError>> {
        match self {
            Self::Local(store) => store.list(),
        }
    }

    /// Throws away partials that nobody has written to for long. See [`LocalStore::sweep_partials`].
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
        }
    }

    /// Checks that a blob could be stored now. See [`LocalStore::ready`].
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.ready().await,
        }
    }

    /// How much the stored blobs take; read from memory.
    pub async fn usage(&self) -> DiskUsage {
        match self {
            Self::Local(store) => store.usage().await,
        }
    }
}
