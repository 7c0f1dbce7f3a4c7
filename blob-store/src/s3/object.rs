//! A blob in the bucket, for reading.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use oci_types::Digest;

use super::{Inner, read};
use crate::StoreError;

/// A blob that is verified, durable and complete, in the bucket.
#[derive(Clone)]
pub struct StoredObject {
    /// Its length in bytes.
    pub size: u64,
    digest: Digest,
    store: Arc<Inner>,
}

impl StoredObject {
    pub(super) fn new(store: &Arc<Inner>, digest: &Digest, size: u64) -> Self {
        Self { size, digest: digest.clone(), store: Arc::clone(store) }
    }

    /// The bytes of `range`, which lies within the size. A connection that breaks is made again from where it
    /// broke; an object store that stays away is [`StoreError::Unavailable`], as the last item. The stream goes at
    /// the reader's pace and ends its request when it is dropped.
    ///
    /// Has the blob fetched to the cache tier in the background, where there is one that takes it.
    pub fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        self.store.warm(&self.digest, self.size);
        self.store.stream(&self.digest, range.start..range.end.min(self.size))
    }
}

impl Inner {
    pub(super) fn stream(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        match self.key(digest) {
            Ok(key) => read::stream(&self.runtime, Arc::clone(&self.uploads.objects), key, range),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }
}

impl fmt::Debug for StoredObject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StoredObject")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
