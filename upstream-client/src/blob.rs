//! Blobs (distribution-spec: end-2).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use oci_types::{Digest, RepositoryName};

use crate::{
    Priority, Upstream, UpstreamError,
    body::stream,
    error::AttemptError,
    request::{ByteRange, RequestKind, UpstreamRequest},
    verdict::{Content, Verdict},
};

/// The description of a blob that the upstream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Size in bytes, if the upstream states it.
    pub size: Option<u64>,
}

/// The part of a blob to open. The default is the whole blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte; `None` for the end of the blob.
    pub end: Option<u64>,
}

/// The time limit until the response with a blob begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstByteLimit {
    /// `first_byte_timeout`: the upstream may store the blob before it sends it.
    Full,
    /// `read_timeout`: the caller has another source.
    Short,
}

/// The bytes of a blob, or of a part of one, as the upstream sends them. They are not verified.
pub struct BlobBody {
    /// Offset of the first byte in the blob. 0 in place of the requested start when the upstream ignores the range.
    pub start: u64,
    /// Size of the whole blob in bytes, if the upstream states it.
    pub size: Option<u64>,
    /// Length of this body in bytes, if the upstream states it. The body may end before the requested end.
    pub length: Option<u64>,
    /// The bytes. A body that is shorter than `length` ends with an error.
    pub stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BlobBody")
            .field("start", &self.start)
            .field("size", &self.size)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Checks that the upstream has a blob, and determines its size. Where `HEAD` is refused, a `GET` of one byte is
    /// sent.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        priority: Priority,
    ) -> Result<BlobHead, UpstreamError> {
        let head = self.blob_request(RequestKind::HeadBlob(digest.clone()), repository, digest);
        let first_byte = self.blob_request(RequestKind::GetFirstByte(digest.clone()), repository, digest);
        let limits = self.transport.metadata_limits();
        self.transport.call(priority, limits, || self.try_head_blob(&head, &first_byte)).await
    }

    /// Opens a blob, or a range of it. Requests are retried until a response begins; a stream that breaks is the
    /// caller's to resume.
    ///
    /// # Errors
    /// [`UpstreamError`]; `RangeNotSatisfiable` when the range is empty or begins behind the end.
    pub async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: BlobRange,
        first_byte: FirstByteLimit,
        priority: Priority,
    ) -> Result<BlobBody, UpstreamError> {
        let byte_range = byte_range(range)?;
        let request = self.blob_request(RequestKind::GetBlob(byte_range), repository, digest);
        let limits = self.transport.blob_limits(first_byte);
        self.transport.call(priority, limits, || self.try_open_blob(&request)).await
    }

    fn blob_request(
        &self,
        kind: RequestKind,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> UpstreamRequest {
        self.request(kind, repository, &format!("blobs/{digest}"))
    }

    async fn try_head_blob(
        &self,
        head: &UpstreamRequest,
        first_byte: &UpstreamRequest,
    ) -> Result<BlobHead, AttemptError> {
        let mut response = self.transport.send(head).await?;
        if response.verdict == Verdict::TryGet {
            response = self.transport.send(first_byte).await?;
        }
        let (content, _) = response.content()?;
        Ok(BlobHead { size: content.size })
    }

    async fn try_open_blob(&self, request: &UpstreamRequest) -> Result<BlobBody, AttemptError> {
        let (content, response) = self.transport.send(request).await?.content()?;
        let Content { start, size, length, .. } = content;
        let stream = stream(Arc::clone(&self.transport), response, length);
        Ok(BlobBody { start, size, length, stream })
    }
}

/// The range to request; `None` for the whole blob.
fn byte_range(range: BlobRange) -> Result<Option<ByteRange>, UpstreamError> {
    match range {
        BlobRange { start: 0, end: None } => Ok(None),
        BlobRange { start, end: None } => Ok(Some(ByteRange { first: start, last: None })),
        BlobRange { start, end: Some(end) } if start < end => {
            Ok(Some(ByteRange { first: start, last: Some(end - 1) }))
        }
        _ => Err(UpstreamError::RangeNotSatisfiable),
    }
}
