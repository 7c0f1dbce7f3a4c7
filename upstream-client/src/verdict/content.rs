//! What the headers of a successful response state about the content.

use http::{HeaderMap, header};
use oci_types::{ContentRange, Digest, MediaType};

use crate::request::ByteRange;

/// What the headers of a successful response state. All fields are optional: registries omit headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    /// `Docker-Content-Digest`.
    pub(crate) digest: Option<Digest>,
    /// `Content-Type`.
    pub(crate) media_type: Option<MediaType>,
    /// Size of the whole content in bytes.
    pub(crate) size: Option<u64>,
    /// Offset of the body's first byte in the content.
    pub(crate) start: u64,
    /// Length of the body in bytes.
    pub(crate) length: Option<u64>,
}

impl Content {
    pub(super) fn manifest(headers: &HeaderMap) -> Self {
        Self {
            digest: declared_digest(headers),
            media_type: media_type(headers).filter(|media_type| !media_type.as_str().is_empty()),
            size: size_of_plain(headers),
            ..Self::default()
        }
    }

    /// From a response to a request for the whole blob.
    pub(super) fn blob_size(headers: &HeaderMap) -> Self {
        Self { size: size_of_plain(headers), ..Self::default() }
    }

    /// From a response to a request for a part of the blob.
    pub(super) fn blob_size_of_part(headers: &HeaderMap) -> Self {
        Self { size: content_range(headers).and_then(|range| range.size), ..Self::default() }
    }

    pub(super) fn empty_blob() -> Self {
        Self { size: Some(0), ..Self::default() }
    }

    pub(super) fn blob(headers: &HeaderMap) -> Self {
        let size = content_length(headers);
        Self { size, length: size, ..Self::default() }
    }

    /// `None` when the response contains another range than the requested one. It may end early.
    pub(super) fn blob_range(headers: &HeaderMap, requested: ByteRange) -> Option<Self> {
        let ContentRange { range, size } = content_range(headers)?;
        let range = range?;
        let matches =
            range.start == requested.first && requested.last.is_none_or(|last| range.end - 1 <= last);
        matches.then(|| Self {
            size,
            start: range.start,
            length: Some(range.end - range.start),
            ..Self::default()
        })
    }
}

/// The size of content that is not encoded. The length of an encoded form is not the size.
fn size_of_plain(headers: &HeaderMap) -> Option<u64> {
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    content_length(headers).filter(|_| is_plain)
}

/// HTML is sent by what is not a registry: a login page, or the captive portal of a network.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    let media_type = media_type(headers);
    media_type.is_some_and(|html| matches!(html.as_str(), "text/html" | "application/xhtml+xml"))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|json| json.as_str() == "application/json")
}

/// Whether the response names this digest.
pub(super) fn names(headers: &HeaderMap, digest: &Digest) -> bool {
    declared_digest(headers).as_ref() == Some(digest)
}

/// Whether the response names another digest than this one. Digests of different algorithms cannot be compared.
pub(super) fn contradicts(headers: &HeaderMap, digest: &Digest) -> bool {
    declared_digest(headers)
        .is_some_and(|declared| declared.algorithm() == digest.algorithm() && declared != *digest)
}

pub(super) fn is_empty_blob(headers: &HeaderMap) -> bool {
    content_range(headers).is_some_and(|range| range.size == Some(0))
}

/// `Content-Length`, also that of a response to `HEAD`.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    ContentRange::parse(headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
}

fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    Some(MediaType::new(headers.get(header::CONTENT_TYPE)?.to_str().ok()?))
}

/// An invalid digest is ignored.
fn declared_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?.trim()).ok()
}
