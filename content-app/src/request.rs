//! A request for a blob, parsed once.

mod preconditions;
mod proof;
mod range;

use actix_web::{
    HttpRequest,
    http::{Method, header},
};
use http_server::if_none_match;
use oci_types::{Digest, RepositoryName};

pub(crate) use proof::{Proof, Verified};
pub(crate) use range::{RangeSpec, Resolved};

use preconditions::if_range_matches;

/// A request for a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRequest {
    pub(crate) digest: Digest,
    /// The repository that the client reads from, as clients call it.
    pub(crate) repository: Option<RepositoryName>,
    /// `HEAD`: only the headers are sent.
    pub(crate) is_head: bool,
    pub(crate) range: RangeSpec,
    /// The entity tag of the blob, with its quotes.
    pub(crate) etag: Option<String>,
    /// `If-None-Match` names the entity tag: the answer is 304.
    pub(crate) is_not_modified: bool,
}

impl BlobRequest {
    /// The request of a client. The entity tag is the digest.
    pub(crate) fn of_client(
        request: &HttpRequest,
        digest: Digest,
        repository: Option<RepositoryName>,
    ) -> Self {
        let headers = request.headers();
        let etag = format!("\"{digest}\"");
        let range = if if_range_matches(headers, &etag) { header_text(request, header::RANGE) } else { None };
        Self {
            digest,
            repository,
            is_head: request.method() == Method::HEAD,
            range: RangeSpec::parse(range),
            is_not_modified: if_none_match(headers, &etag),
            etag: Some(etag),
        }
    }

    /// The request of another node, without preconditions: the node compares entity tags itself.
    pub(crate) fn of_peer(request: &HttpRequest, digest: Digest) -> Self {
        Self {
            digest,
            repository: None,
            is_head: request.method() == Method::HEAD,
            range: RangeSpec::parse(header_text(request, header::RANGE)),
            etag: None,
            is_not_modified: false,
        }
    }
}

/// The value of a header, where it is visible ASCII.
pub(crate) fn header_text(request: &HttpRequest, name: impl header::AsHeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}
