//! The error codes of the distribution specification and the body that carries them (distribution-spec: "Error Codes").

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde::Serialize;

const CACHE_STATUS: &str = "Cache-Status";

/// A code of distribution-spec, "Error Codes", or one that registries use in addition
/// (`UNAVAILABLE`, `UNKNOWN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciCode {
    /// The repository does not have the blob.
    BlobUnknown,
    /// The digest is invalid.
    DigestInvalid,
    /// The manifest is malformed or rejected.
    ManifestInvalid,
    /// The repository does not have the manifest.
    ManifestUnknown,
    /// The repository name is invalid.
    NameInvalid,
    /// The repository is unknown.
    NameUnknown,
    /// The tag is invalid.
    TagInvalid,
    /// The page size is not a number, or the position is not a name.
    PaginationNumberInvalid,
    /// The method, media type or path is not supported.
    Unsupported,
    /// The request is denied by a rule of this service or by the upstream.
    Denied,
    /// A rate limit of the upstream or of this service is exceeded.
    TooManyRequests,
    /// The service is temporarily unavailable.
    Unavailable,
    /// Any other error; the log has the cause.
    Unknown,
}

impl OciCode {
    /// The code as written in the body, and its default status.
    pub fn descriptor(self) -> (&'static str, StatusCode) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", StatusCode::NOT_FOUND),
            Self::DigestInvalid => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestInvalid => ("MANIFEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", StatusCode::NOT_FOUND),
            Self::NameInvalid => ("NAME_INVALID", StatusCode::BAD_REQUEST),
            Self::NameUnknown => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::TagInvalid => ("TAG_INVALID", StatusCode::BAD_REQUEST),
            Self::PaginationNumberInvalid => ("PAGINATION_NUMBER_INVALID", StatusCode::BAD_REQUEST),
            Self::Unsupported => ("UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
            Self::Denied => ("DENIED", StatusCode::FORBIDDEN),
            Self::TooManyRequests => ("TOOMANYREQUESTS", StatusCode::TOO_MANY_REQUESTS),
            Self::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unknown => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// One error, as sent to a client. The message contains no path, query or host of this service.
#[derive(Debug, Clone)]
pub struct OciError {
    code: OciCode,
    status: StatusCode,
    message: String,
    retry_after: Option<u64>,
    /// Whether an upstream failed, rather than this service.
    is_of_upstream: bool,
}

impl OciError {
    /// An error with the default status of the code.
    pub fn new(code: OciCode, message: impl Into<String>) -> Self {
        Self {
            code,
            status: code.descriptor().1,
            message: message.into(),
            retry_after: None,
            is_of_upstream: false,
        }
    }

    /// The same with another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with `Retry-After`, in seconds. Zero becomes one, so that clients do not retry at
    /// once.
    pub fn with_retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds.map(|seconds| seconds.max(1));
        self
    }

    /// The same for a failure of an upstream. `Cache-Status` (RFC 9211) reports this, so that a
    /// cache in front of this service does not attribute the failure to this service.
    pub(crate) fn of_upstream(mut self) -> Self {
        self.is_of_upstream = true;
        self
    }

    /// The response: status, JSON body and, if set, `Retry-After`.
    pub fn response(&self) -> HttpResponse {
        let body = Body { errors: [Entry { code: self.code.descriptor().0, message: &self.message }] };
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CACHE_CONTROL, "no-cache"));
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.is_of_upstream {
            response.insert_header((CACHE_STATUS, "tidegate; fwd=miss; detail=upstream-failed"));
        }
        response.json(body)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
}
