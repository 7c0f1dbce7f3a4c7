//! A stored blob in the object store.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use oci_types::Digest;

use super::{S3Backend, read};
use crate::{BlobMeta, StoreError};

/// A stored blob in the object store. Cheap to clone; it does no I/O before it is read.
#[derive(Clone)]
pub struct BlobObject {
    digest: Digest,
    size: u64,
    s3: Arc<S3Backend>,
}

impl BlobObject {
    pub(crate) fn new(s3: &Arc<S3Backend>, blob: &BlobMeta) -> Self {
        Self { digest: blob.digest.clone(), size: blob.size, s3: Arc::clone(s3) }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Streams the bytes of `range`, up to the size, at the pace of the reader. After a broken
    /// connection, the read resumes at the offset that it reached; if the object store stays
    /// unavailable, the last item is [`StoreError::Unavailable`]. The request starts when the
    /// stream is first polled and ends when it is dropped.
    ///
    /// Also starts to download the blob to the local cache, in the background, if it fits.
    pub fn get_range(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        self.s3.warm_cache(&self.digest, self.size);
        self.s3.stream(&self.digest, range.start..range.end.min(self.size))
    }
}

impl S3Backend {
    pub(super) fn stream(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        read::stream(&self.runtime, Arc::clone(&self.bucket), self.bucket.key(digest), range)
    }
}

impl fmt::Debug for BlobObject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BlobObject")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
