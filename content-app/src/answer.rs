//! The head of the answer to a request for a blob: pure.

use std::{fmt, ops::Range};

use actix_web::http::StatusCode;

use crate::request::{BlobRequest, Resolved};

#[cfg(test)]
mod tests;

/// A blob never changes, and its bytes must not.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable, no-transform";

/// The state of a requested blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// The blob is constant.
    Constant(&'static [u8]),
    /// The blob is stored.
    Stored { size: u64 },
    /// The blob is neither stored nor filled for this request.
    OnDemand { size: Option<u64> },
    /// The blob is filled; `collapsed`: the fill ran before this request.
    Filling { size: u64, collapsed: bool },
    /// The blob is streamed from an upstream without being stored.
    Bypassed { size: u64 },
}

/// Where the body of an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySource {
    /// No body is sent.
    None,
    Constant(&'static [u8]),
    Storage,
    Fill,
    Upstream,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The range of the blob that is sent, or would be sent to `GET`.
    pub(crate) range: Range<u64>,
    pub(crate) source: BodySource,
    size: Option<u64>,
    digest: String,
    etag: Option<String>,
    cache_status: CacheStatus,
}

/// The value of `Cache-Status` (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CacheStatus {
    outcome: &'static str,
    is_unverified: bool,
}

impl Answer {
    /// The answer to `request` for a blob in the state `known`.
    pub(crate) fn new(request: &BlobRequest, known: Known) -> Self {
        let (size, source, outcome) = match known {
            Known::Constant(bytes) => (u64::try_from(bytes.len()).ok(), BodySource::Constant(bytes), "hit"),
            Known::Stored { size } => (Some(size), BodySource::Storage, "hit"),
            Known::OnDemand { size } => (size, BodySource::None, "fwd=miss"),
            Known::Filling { size, collapsed: false } => (Some(size), BodySource::Fill, "fwd=miss; stored"),
            Known::Filling { size, collapsed: true } => {
                (Some(size), BodySource::Fill, "fwd=miss; stored; collapsed")
            }
            Known::Bypassed { size } => (Some(size), BodySource::Upstream, "fwd=bypass; detail=not-stored"),
        };
        let whole = 0..size.unwrap_or(0);
        let resolved = size.map_or(Resolved::Whole, |size| request.range.resolve(size));
        let (status, range) = match resolved {
            Resolved::Whole => (StatusCode::OK, whole),
            Resolved::Partial(range) => (StatusCode::PARTIAL_CONTENT, range),
            Resolved::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
        };
        let has_body = !request.is_head && status != StatusCode::RANGE_NOT_SATISFIABLE;
        Self {
            status,
            range,
            source: if has_body { source } else { BodySource::None },
            size,
            digest: request.digest.to_string(),
            etag: request.etag.clone(),
            cache_status: CacheStatus { outcome, is_unverified: false },
        }
    }

    /// 304: the client has the blob.
    pub(crate) fn not_modified(request: &BlobRequest) -> Self {
        let answer = Self::new(request, Known::OnDemand { size: None });
        Self { status: StatusCode::NOT_MODIFIED, ..answer }
    }

    /// The same for bytes that are served before the blob is verified.
    pub(crate) fn unverified(mut self) -> Self {
        self.cache_status.is_unverified = true;
        self
    }

    /// Whether the answer has a range to read.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether the whole blob is sent.
    pub(crate) fn is_whole(&self) -> bool {
        Some(self.range.end - self.range.start) == self.size
    }

    /// `Content-Length`; `None` where the size of the blob is not known (RFC 9110, section 8.6).
    pub(crate) fn length(&self) -> Option<u64> {
        self.size.map(|_| self.range.end - self.range.start)
    }

    /// The headers, without `Content-Length`.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        match self.status {
            StatusCode::RANGE_NOT_SATISFIABLE => {
                headers.push(("Content-Range", format!("bytes */{}", self.size.unwrap_or(0))));
                return headers;
            }
            StatusCode::NOT_MODIFIED => {}
            status => {
                headers.push(("Docker-Content-Digest", self.digest.clone()));
                headers.push(("Accept-Ranges", "bytes".to_owned()));
                let is_unverified = self.cache_status.is_unverified;
                let cache_control = if is_unverified { "no-store" } else { CACHE_CONTROL };
                headers.push(("Cache-Control", cache_control.to_owned()));
                // nginx would otherwise read ahead of its client for minutes, or write the body to disk.
                headers.push(("X-Accel-Buffering", "no".to_owned()));
                headers.push(("Content-Type", "application/octet-stream".to_owned()));
                headers.push(("Cache-Status", self.cache_status.to_string()));
                if status == StatusCode::PARTIAL_CONTENT {
                    let (first, last) = (self.range.start, self.range.end.saturating_sub(1));
                    let size = self.size.unwrap_or(0);
                    headers.push(("Content-Range", format!("bytes {first}-{last}/{size}")));
                }
            }
        }
        headers.extend(self.etag.clone().map(|etag| ("ETag", etag)));
        headers
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = if self.is_unverified { "; detail=unverified" } else { "" };
        write!(out, "tidegate; {}{detail}", self.outcome)
    }
}
