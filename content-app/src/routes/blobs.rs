//! `GET|HEAD /content/v1/{repository}/blobs/{digest}`: the bytes of a blob, under a signed link.

use std::{ops::Range, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::SizedStream,
    http::{Method, StatusCode, header},
    web,
};
use blob_store::StoredBlob;
use futures::stream;
use shared_models::{Digest, Hasher, Millis, constant_blobs, db::blobs};

use crate::{
    Content, body,
    error::ContentError,
    fill::{Bypass, FillError, Reader},
    range::{Asked, asked, if_range_holds, none_match_hits},
};

/// How often a request looks again when the fill it joined stopped, or the blob was stored, in the same moment.
const JOIN_ATTEMPTS: usize = 5;

/// Answers a blob to whoever has a valid link to it.
pub(crate) async fn get(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    let (repository, digest) = path.into_inner();
    let (_, digest) = content
        .config
        .link_keys
        .verify(&repository, &digest, request.query_string(), Millis::now())
        .map_err(|_| ContentError::BadLink)?;
    let etag = format!("\"{digest}\"");
    if none_match_hits(text(&request, header::IF_NONE_MATCH), &etag) {
        return Ok(HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish());
    }
    let asked_for = Ask {
        head: request.method() == Method::HEAD,
        range: text(&request, header::RANGE)
            .filter(|_| if_range_holds(text(&request, header::IF_RANGE), &etag))
            .map(str::to_owned),
        digest,
        etag,
    };
    if let Some(bytes) = constant_blobs::bytes(&asked_for.digest) {
        return Ok(asked_for.constant(bytes));
    }
    for _ in 0..JOIN_ATTEMPTS {
        if let Some(blob) = content.open.get(&asked_for.digest).await? {
            content.reads.note(&asked_for.digest);
            return Ok(asked_for.stored(blob, content.config.read_size));
        }
        if asked_for.head {
            return asked_for.head_of_cold(&content).await;
        }
        match asked_for.join(&content).await {
            Err(FillError::Stopped | FillError::AlreadyStored) => {}
            answer => return Ok(answer?),
        }
    }
    Err(FillError::Stopped.into())
}

fn text(request: &HttpRequest, name: header::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// What a client asks for.
struct Ask {
    head: bool,
    range: Option<String>,
    digest: Digest,
    etag: String,
}

impl Ask {
    fn constant(&self, bytes: &'static [u8]) -> HttpResponse {
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

    fn stored(&self, blob: StoredBlob, read_size: usize) -> HttpResponse {
        match self.begin(blob.size, "tidegate; hit") {
            Ok((mut response, window)) => {
                let left = usize::try_from(window.end - window.start).unwrap_or(read_size);
                let chunks = body::stored(blob.file, window.clone(), read_size.min(left.max(1)));
                self.finish(&mut response, &window, chunks)
            }
            Err(unsatisfiable) => *unsatisfiable,
        }
    }

    /// The headers of a blob that is not here. Nothing is downloaded for them.
    async fn head_of_cold(&self, content: &Content) -> Result<HttpResponse, ContentError> {
        let size = match content.running_size(&self.digest) {
            Some(size) => size,
            None => blobs::find(&content.fills.context.db, &self.digest)
                .await?
                .and_then(|row| row.size)
                .ok_or(ContentError::SizeUnknown)?,
        };
        Ok(match self.begin(size, "tidegate; fwd=miss") {
            Ok((mut response, window)) => {
                self.finish(&mut response, &window, stream::empty::<Result<web::Bytes, FillError>>())
            }
            Err(unsatisfiable) => *unsatisfiable,
        })
    }

    /// Joins the fill of a blob that is not here, or starts it. The answer begins when its first byte is here, so that a
    /// failure before it is an honest status.
    async fn join(&self, content: &Content) -> Result<HttpResponse, FillError> {
        let asks_whole = self.asks_whole();
        let (mut reader, joined) =
            content.fills.join(&self.digest, |fill| Reader::join(Arc::clone(fill), asks_whole));
        let size = match reader.size().await {
            Err(FillError::NoSpace) => return self.bypass(content, None).await,
            size => size?,
        };
        let window = match asked(self.range.as_deref(), size) {
            Asked::Unsatisfiable => return Ok(self.unsatisfiable(size)),
            Asked::Whole => 0..size,
            Asked::Window(window) => window,
        };
        let whole = window == (0..size);
        if !window.is_empty() {
            match reader.readable(window.start, &window, whole).await {
                Err(FillError::NoSpace) => return self.bypass(content, Some(size)).await,
                readable => drop(readable?),
            }
        }
        let status = match (joined, reader.is_unverified(whole)) {
            (false, false) => "tidegate; fwd=miss; stored",
            (false, true) => "tidegate; fwd=miss; stored; detail=unverified",
            (true, false) => "tidegate; fwd=miss; stored; collapsed",
            (true, true) => "tidegate; fwd=miss; stored; collapsed; detail=unverified",
        };
        let counted = content.fills.context.metrics.reader();
        match self.begin(size, status) {
            Ok((mut response, window)) => {
                let context = Arc::clone(&content.fills.context);
                let chunks = body::growing(context, reader, window.clone(), whole, counted);
                Ok(self.finish(&mut response, &window, chunks))
            }
            Err(unsatisfiable) => Ok(*unsatisfiable),
        }
    }

    /// Answers from upstream alone: there is no space to store the blob.
    async fn bypass(&self, content: &Content, size: Option<u64>) -> Result<HttpResponse, FillError> {
        let (context, policy) = (Arc::clone(&content.fills.context), content.config.fills.clone());
        let range = self.range.clone();
        let window = move |size| match asked(range.as_deref(), size) {
            Asked::Window(window) => window,
            Asked::Whole => 0..size,
            Asked::Unsatisfiable => size..size,
        };
        let asks_whole = self.asks_whole();
        let hasher = asks_whole.then(|| Hasher::new(self.digest.algorithm()));
        let bypass = Bypass::open(context, policy, self.digest.clone(), size, window, hasher).await?;
        let status = "tidegate; fwd=bypass; detail=no-space";
        Ok(match self.begin(bypass.size(), status) {
            Ok((mut response, window)) => self.finish(&mut response, &window, body::bypassing(bypass)),
            Err(unsatisfiable) => *unsatisfiable,
        })
    }

    /// Whether the header alone tells that all of the blob is wanted.
    fn asks_whole(&self) -> bool {
        self.range.as_deref().is_none_or(|range| range.trim() == "bytes=0-")
    }

    /// Status and headers for a blob of `size` bytes, and the window that was asked for.
    fn begin(
        &self,
        size: u64,
        cache_status: &str,
    ) -> Result<(HttpResponseBuilder, Range<u64>), Box<HttpResponse>> {
        let (status, window) = match asked(self.range.as_deref(), size) {
            Asked::Unsatisfiable => return Err(Box::new(self.unsatisfiable(size))),
            Asked::Whole => (StatusCode::OK, 0..size),
            Asked::Window(window) => (StatusCode::PARTIAL_CONTENT, window),
        };
        let mut response = HttpResponse::build(status);
        if status == StatusCode::PARTIAL_CONTENT {
            let content_range = format!("bytes {}-{}/{size}", window.start, window.end.saturating_sub(1));
            response.insert_header((header::CONTENT_RANGE, content_range));
        }
        response
            .insert_header(("Docker-Content-Digest", self.digest.as_str()))
            .insert_header((header::ETAG, self.etag.as_str()))
            .insert_header((header::ACCEPT_RANGES, "bytes"))
            .insert_header((header::CACHE_CONTROL, "private, max-age=31536000, immutable"))
            .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
            .insert_header(("Cache-Status", cache_status));
        Ok((response, window))
    }

    fn finish<E>(
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
            return response.body(SizedStream::new(length, stream::empty::<Result<web::Bytes, FillError>>()));
        }
        response.body(SizedStream::new(length, Box::pin(chunks)))
    }

    fn unsatisfiable(&self, size: u64) -> HttpResponse {
        HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
            .insert_header((header::ETAG, self.etag.as_str()))
            .finish()
    }
}
