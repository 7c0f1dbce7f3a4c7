//! What is asked of one blob, and how it is answered: status, headers, window.

use std::ops::Range;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{None as NoBody, SizedStream},
    http::{Method, StatusCode, header},
    web,
};
use blob_store::StoredAt;
use futures::stream;
use oci_types::Digest;

use crate::{
    Content,
    error::ContentError,
    fills::{FillError, Part},
    range::{Asked, asked, if_range_holds, none_match_hits},
    writer,
};

/// One request for one blob.
pub(crate) struct Ask {
    head: bool,
    range: Option<String>,
    digest: Digest,
    etag: Option<String>,
}

impl Ask {
    /// What a client asks for. The blob's entity tag is its digest.
    pub(crate) fn of_client(request: &HttpRequest, digest: Digest) -> Self {
        let etag = format!("\"{digest}\"");
        let range = text(request, header::RANGE)
            .filter(|_| if_range_holds(text(request, header::IF_RANGE), &etag))
            .map(str::to_owned);
        Self { head: request.method() == Method::HEAD, range, digest, etag: Some(etag) }
    }

    /// What another node asks for: always the range that it names, for it compares entity tags itself.
    pub(crate) fn of_peer(request: &HttpRequest, digest: Digest) -> Self {
        let range = text(request, header::RANGE).map(str::to_owned);
        Self { head: request.method() == Method::HEAD, range, digest, etag: None }
    }

    /// The same, answered with this entity tag.
    pub(crate) fn tagged(self, etag: String) -> Self {
        Self { etag: Some(etag), ..self }
    }

    /// The blob.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether only the headers are wanted.
    pub(crate) fn is_head(&self) -> bool {
        self.head
    }

    /// The range that is asked for, as it was sent.
    pub(crate) fn range(&self) -> Option<&str> {
        self.range.as_deref()
    }

    /// The answer to a client that has the blob already.
    pub(crate) fn not_modified(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let etag = self.etag.as_deref()?;
        none_match_hits(text(request, header::IF_NONE_MATCH), etag)
            .then(|| HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish())
    }

    /// Answers with a blob that every registry knows.
    pub(crate) fn constant(&self, bytes: &'static [u8]) -> HttpResponse {
        let size = u64::try_from(bytes.len()).unwrap_or(0);
        let (mut response, window) = match self.begin(size, "tidegate; hit") {
            Ok(begun) => begun,
            Err(unsatisfiable) => return *unsatisfiable,
        };
        let from = usize::try_from(window.start).unwrap_or(0);
        let to = usize::try_from(window.end).unwrap_or(0);
        let chunk = web::Bytes::from_static(bytes.get(from..to).unwrap_or_default());
        self.finish(&mut response, &window, stream::iter([Ok::<_, FillError>(chunk)]))
    }

    /// Answers from the storage; `None` when it went away before the first byte.
    pub(crate) async fn stored(
        &self,
        content: &Content,
        found: StoredAt,
    ) -> Result<Option<HttpResponse>, ContentError> {
        let (mut response, window) = match self.begin(found.size(), "tidegate; hit") {
            Ok(begun) => begun,
            Err(unsatisfiable) => return Ok(Some(*unsatisfiable)),
        };
        let chunks = match found {
            _ if self.head => return Ok(Some(self.finish(&mut response, &window, writer::nothing()))),
            StoredAt::File(blob) => {
                let chunks = writer::stored(blob.file, window.clone(), content.config.read_size);
                return Ok(Some(self.finish(&mut response, &window, chunks)));
            }
            StoredAt::Object(object) => writer::begun(object.read(window.clone())).await,
        };
        match chunks {
            Ok(chunks) => Ok(Some(self.finish(&mut response, &window, chunks))),
            Err(error) if error.is_unavailable() => {
                tracing::warn!(digest = %self.digest, "a stored blob is fetched from upstream: {error}");
                content.fills.context.open.distrust(&self.digest).await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the header alone tells of what is wanted, before the blob's size is known.
    pub(crate) fn part(&self) -> Part {
        let asks_whole = self.range.as_deref().is_none_or(|range| range.trim() == "bytes=0-");
        if asks_whole { Part::Whole } else { Part::Window }
    }

    /// Status and headers for a blob of `size` bytes, and the window that was asked for.
    pub(crate) fn begin(
        &self,
        size: u64,
        cache_status: &str,
    ) -> Result<(HttpResponseBuilder, Range<u64>), Box<HttpResponse>> {
        let (status, window) = match asked(self.range.as_deref(), size) {
            Asked::Unsatisfiable => return Err(Box::new(self.unsatisfiable(size))),
            Asked::Whole => (StatusCode::OK, 0..size),
            Asked::Window(window) => (StatusCode::PARTIAL_CONTENT, window),
        };
        let mut response = self.headers(status, cache_status);
        if status == StatusCode::PARTIAL_CONTENT {
            let content_range = format!("bytes {}-{}/{size}", window.start, window.end.saturating_sub(1));
            response.insert_header((header::CONTENT_RANGE, content_range));
        }
        Ok((response, window))
    }

    /// The answer to `HEAD` for a blob of unknown size. It has no `Content-Length` (RFC 9110, section 8.6).
    pub(crate) fn without_size(&self, cache_status: &str) -> HttpResponse {
        self.headers(StatusCode::OK, cache_status)
            .finish()
            .map_body(|_, _| NoBody::new())
            .map_into_boxed_body()
    }

    fn headers(&self, status: StatusCode, cache_status: &str) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(status);
        response
            .insert_header(("Docker-Content-Digest", self.digest.as_str()))
            .insert_header((header::ACCEPT_RANGES, "bytes"))
            .insert_header((header::CACHE_CONTROL, "private, max-age=31536000, immutable"))
            .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
            .insert_header(("Cache-Status", cache_status));
        if let Some(etag) = &self.etag {
            response.insert_header((header::ETAG, etag.as_str()));
        }
        response
    }

    /// The answer with its body, or without it for `HEAD`.
    pub(crate) fn finish<E>(
        &self,
        response: &mut HttpResponseBuilder,
        window: &Range<u64>,
        chunks: impl stream::Stream<Item = Result<web::Bytes, E>> + 'static,
    ) -> HttpResponse
    where
        E: std::error::Error + 'static,
    {
        let length = window.end - window.start;
        if self.head {
            return response.body(SizedStream::new(length, writer::nothing()));
        }
        response.body(SizedStream::new(length, Box::pin(chunks)))
    }

    /// The answer to a range that lies beyond the end.
    pub(crate) fn unsatisfiable(&self, size: u64) -> HttpResponse {
        HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
            .finish()
    }
}

fn text(request: &HttpRequest, name: header::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}
