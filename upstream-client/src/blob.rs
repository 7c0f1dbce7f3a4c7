//! Blobs (distribution-spec: end-2).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderValue, header};
use oci_types::{Digest, RepositoryName};

use crate::{
    Priority, Upstream, UpstreamError,
    body::pieces,
    error::AttemptError,
    request::{ByteRange, RequestKind, UpstreamRequest},
    verdict::{Content, Verdict},
};

/// Upstream has the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its size in bytes, if upstream says.
    pub size: Option<u64>,
}

/// The bytes of a blob, or of a part of one. They are as upstream sent them: nothing here has hashed them.
pub struct BlobBody {
    /// Where in the blob the first byte lies. 0 although another start was asked for when upstream ignored the range.
    pub start: u64,
    /// The size of the whole blob in bytes, if upstream says.
    pub total: Option<u64>,
    /// How many bytes this body has, if upstream says. It may end before the end that was asked for.
    pub length: Option<u64>,
    /// A strong `ETag`, to send as `if_range` when the rest is fetched later.
    pub validator: Option<String>,
    /// The bytes. A body that is shorter than `length` ends with an error.
    pub stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BlobBody")
            .field("start", &self.start)
            .field("total", &self.total)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Asks whether upstream has a blob and how large it is. Where `HEAD` is refused, a `GET` of one byte tells.
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
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_head_blob(&head, &first_byte)).await
    }

    /// Opens a blob from the byte `from` up to, not including, the byte `to`, or to its end. Retries end where the
    /// answer begins; a stream that breaks is the caller's to resume.
    ///
    /// `if_range`: the validator of the part that is here already. If the blob is another one now, all of it is sent.
    ///
    /// # Errors
    /// [`UpstreamError`]; `RangeNotSatisfiable` when the range is empty or begins behind the end.
    pub async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: u64,
        to: Option<u64>,
        if_range: Option<&str>,
        priority: Priority,
    ) -> Result<BlobBody, UpstreamError> {
        if to.is_some_and(|to| to <= from) {
            return Err(UpstreamError::RangeNotSatisfiable);
        }
        let range =
            (from > 0 || to.is_some()).then_some(ByteRange { first: from, last: to.map(|to| to - 1) });
        let mut request = self.blob_request(RequestKind::GetBlob(range), repository, digest);
        if let (Some(validator), Some(_)) = (if_range, range) {
            request.headers.insert(header::IF_RANGE, value(validator)?);
        }
        let within = self.transport.config.read_timeout;
        self.transport.call(priority, within, || self.try_open_blob(&request)).await
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
        let mut answer = self.transport.send(head).await?;
        if answer.verdict == Verdict::TryGet {
            answer = self.transport.send(first_byte).await?;
        }
        let (content, _) = answer.content()?;
        Ok(BlobHead { size: content.size })
    }

    async fn try_open_blob(&self, request: &UpstreamRequest) -> Result<BlobBody, AttemptError> {
        let (content, response) = self.transport.send(request).await?.content()?;
        let Content { start, size, length, validator, .. } = content;
        let stream = pieces(Arc::clone(&self.transport), response, length);
        Ok(BlobBody { start, total: size, length, validator, stream })
    }
}

fn value(text: &str) -> Result<HeaderValue, UpstreamError> {
    HeaderValue::try_from(text).map_err(|error| {
        UpstreamError::invalid_response("validator is not a valid header value").with_source(error)
    })
}
