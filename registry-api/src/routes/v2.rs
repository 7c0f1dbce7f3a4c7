//! `/v2/`: the distribution API.

mod accept;
pub(super) mod base;
pub(super) mod blobs;
pub(super) mod catalog;
pub(super) mod manifests;
pub(super) mod referrers;
pub(super) mod tags;

use actix_web::http::header::HeaderName;

/// The digest of the content.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// RFC 9211
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
