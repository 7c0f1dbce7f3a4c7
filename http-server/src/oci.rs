//! The error codes of the distribution specification and the body that carries them (distribution-spec: "Error Codes").

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde::Serialize;

const CACHE_STATUS: &str = "Cache-Status";

/// A code of distribution-spec, "Error Codes", or one that registries use beside them (`UNAVAILABLE`, `UNKNOWN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciCode {
    /// A blob that is not known to the repository.
    BlobUnknown,
    /// A text that is not a digest.
    DigestInvalid,
    /// A manifest that cannot be read or is refused.
    ManifestInvalid,
    /// A manifest that is not known to the repository.
    ManifestUnknown,
    /// A text that is not a repository name.
    NameInvalid,
    /// A repository that is not known.
    NameUnknown,
    /// A text that is not a tag.
    TagInvalid,
    /// A page size that is not a number, or a position that is not a name.
    PaginationNumberInvalid,
    /// A method, media type or path that is not served.
    Unsupported,
    /// Refused by a rule here or by upstream.
    Denied,
    /// Upstream's quota, or ours, is used up.
    TooManyRequests,
    /// The service cannot answer now and can later.
    Unavailable,
    /// Anything else; the log says what.
    Unknown,
}

impl OciCode {
    /// The code as it stands in the body, and the status that goes with it unless an error says otherwise.
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

/// One error as a client reads it. The message contains no path, query or host of this service.
#[derive(Debug, Clone)]
pub struct OciError {
    code: OciCode,
    status: StatusCode,
    message: String,
    retry_after: Option<u64>,
    /// Whether an upstream failed, and not this service.
    is_of_upstream: bool,
}

impl OciError {
    /// An error with the code's own status.
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

    /// The same with `Retry-After`, in seconds; rounded up from zero so that nobody is told to come back at once.
    pub fn with_retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds.map(|seconds| seconds.max(1));
        self
    }

    /// The same for a failure of an upstream. `Cache-Status` tells it (RFC 9211), so that a cache in front of this one does
    /// not take it for a failure of this one.
    pub(crate) fn of_upstream(mut self) -> Self {
        self.is_of_upstream = true;
        self
    }

    /// The answer: status, JSON body and `Retry-After` where there is one.
    pub fn response(&self) -> HttpResponse {
        let body = Body { errors: [Entry { code: self.code.descriptor().0, message: &self.message }] };
        let mut response = HttpResponse::build(self.status);
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
