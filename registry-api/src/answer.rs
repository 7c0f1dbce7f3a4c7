//! What pulls answer: values that requests share and handlers turn into responses.

use std::sync::Arc;

use oci_types::{Digest, MediaType, Tag};
use shared_models::db::{links::LinkedBlob, manifests::StoredManifest};

use crate::{cache_status::Outcome, error::ApiError, listing::Page};

/// The headers of a manifest's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestHeaders {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    /// In bytes.
    pub(crate) size: u64,
}

/// The answer to a request for a manifest.
#[derive(Clone)]
pub(crate) enum ManifestAnswer {
    /// The manifest.
    Manifest(Arc<StoredManifest>),
    /// For `HEAD`: the headers that the upstream sent for a manifest that is not present yet.
    Headers(ManifestHeaders),
}

/// The answer to a request for a manifest, and how it was obtained.
pub(crate) type ManifestResult = Result<(ManifestAnswer, Outcome), ApiError>;

/// The progress of the check of a tag.
#[derive(Clone)]
pub(crate) enum TagCheckProgress {
    /// The headers that the upstream sent; the manifest is being fetched.
    Headers(ManifestHeaders),
    /// The end of the check.
    Done(ManifestResult),
}

/// A manifest by digest, and how it was obtained.
pub(crate) type DigestResult = Result<(Arc<StoredManifest>, Outcome), ApiError>;

/// The answer to a request for a blob. content-app or the object store sends its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobAnswer {
    /// One of the two constant blobs.
    Constant(&'static [u8]),
    /// Its size in bytes, where it is known.
    Described(Option<u64>),
    /// The URL of its bytes.
    Redirect(String),
}

/// A page of a tag list, and how it was obtained.
pub(crate) type TagListResult = Result<(Arc<Page<Tag>>, Outcome), ApiError>;

/// A blob that the upstream has confirmed, as it is recorded now.
pub(crate) type BlobResult = Result<LinkedBlob, ApiError>;
