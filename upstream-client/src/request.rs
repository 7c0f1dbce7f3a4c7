//! The requests that are sent to an upstream.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderValue, Method, header};
use oci_types::{
    Digest, Reference,
    media_type::{MANIFEST_TYPES, OCI_INDEX},
};
use url::Url;

use crate::http_clients::TrafficClass;

/// One request to an upstream or to its token service.
#[derive(Debug)]
pub(crate) struct UpstreamRequest {
    pub(crate) kind: RequestKind,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Scope of the token, unless the challenge names another one: `repository:NAME:pull`.
    pub(crate) scope: String,
}

/// The content that a request is for, and the method. A verdict on a response depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// `HEAD` of the manifest with this reference.
    HeadManifest(Reference),
    /// `GET` of a manifest.
    GetManifest,
    /// `HEAD` of the blob with this digest.
    HeadBlob(Digest),
    /// `GET` of the first byte of the blob with this digest, where `HEAD` proves nothing.
    GetFirstByte(Digest),
    /// `GET` of a blob, or of this range of it.
    GetBlob(Option<ByteRange>),
    /// `GET` of a page of a tag list.
    ListTags,
    /// `GET` of a page of a list of referrers.
    ListReferrers,
    /// `GET` of `/v2/`, for its challenge.
    GetBase,
    /// `GET` of a token from a token service.
    GetToken,
}

/// A range of bytes as in the `Range` header (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    /// Offset of the first byte.
    pub(crate) first: u64,
    /// Offset of the last byte; `None` for the end of the blob.
    pub(crate) last: Option<u64>,
}

/// The kinds of content for which a `HEAD` has succeeded.
#[derive(Debug, Default)]
pub(crate) struct HeadWorks {
    manifests: AtomicBool,
    blobs: AtomicBool,
}

impl HeadWorks {
    /// Records that a request of this kind has succeeded.
    pub(crate) fn insert(&self, kind: &RequestKind) {
        if let Some(works) = self.of(kind) {
            works.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a `HEAD` of this kind has succeeded.
    pub(crate) fn contains(&self, kind: &RequestKind) -> bool {
        self.of(kind).is_some_and(|works| works.load(Ordering::Relaxed))
    }

    fn of(&self, kind: &RequestKind) -> Option<&AtomicBool> {
        match kind {
            RequestKind::HeadManifest(_) => Some(&self.manifests),
            RequestKind::HeadBlob(_) => Some(&self.blobs),
            _ => None,
        }
    }
}

impl RequestKind {
    pub(crate) fn method(&self) -> Method {
        match self {
            Self::HeadManifest(_) | Self::HeadBlob(_) => Method::HEAD,
            Self::GetManifest
            | Self::GetFirstByte(_)
            | Self::GetBlob(_)
            | Self::ListTags
            | Self::ListReferrers
            | Self::GetBase
            | Self::GetToken => Method::GET,
        }
    }

    pub(crate) fn is_head(&self) -> bool {
        matches!(self, Self::HeadManifest(_) | Self::HeadBlob(_))
    }

    /// A first byte counts as a blob: an upstream that ignores `Range` sends the whole blob.
    pub(crate) fn traffic_class(&self) -> TrafficClass {
        match self {
            Self::GetFirstByte(_) | Self::GetBlob(_) => TrafficClass::Blob,
            Self::HeadManifest(_)
            | Self::GetManifest
            | Self::HeadBlob(_)
            | Self::ListTags
            | Self::ListReferrers
            | Self::GetBase
            | Self::GetToken => TrafficClass::Metadata,
        }
    }

    fn headers(&self) -> HeaderMap {
        let accept = match self {
            Self::HeadManifest(_) | Self::GetManifest => ACCEPT_MANIFEST.clone(),
            Self::HeadBlob(_) | Self::GetFirstByte(_) | Self::GetBlob(_) => HeaderValue::from_static("*/*"),
            Self::ListReferrers => HeaderValue::from_static(OCI_INDEX),
            Self::ListTags | Self::GetBase | Self::GetToken => HeaderValue::from_static("application/json"),
        };
        let mut headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        if !matches!(self, Self::ListTags | Self::ListReferrers | Self::GetBase | Self::GetToken) {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let range = match self {
            Self::GetFirstByte(_) => Some(ByteRange { first: 0, last: Some(0) }),
            Self::GetBlob(range) => *range,
            _ => None,
        };
        if let Some(range) = range.and_then(ByteRange::header) {
            headers.insert(header::RANGE, range);
        }
        headers
    }
}

impl ByteRange {
    fn header(self) -> Option<HeaderValue> {
        let last = self.last.map(|last| last.to_string()).unwrap_or_default();
        HeaderValue::try_from(format!("bytes={}-{last}", self.first)).ok()
    }
}

impl UpstreamRequest {
    /// A request with the headers of its kind.
    pub(crate) fn new(kind: RequestKind, url: Url, scope: String) -> Self {
        Self { headers: kind.headers(), kind, url, scope }
    }
}

static ACCEPT_MANIFEST: LazyLock<HeaderValue> = LazyLock::new(|| {
    let any = HeaderValue::from_static("*/*");
    HeaderValue::try_from(MANIFEST_TYPES.join(", ")).unwrap_or(any)
});
