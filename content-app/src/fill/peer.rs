//! Another node as a source: the bytes of its fill as they land there, or of what it has stored.

use std::{ops::Range, sync::Arc, time::Duration};

use futures::StreamExt;
use internal_api::content_link::LinkKeys;
use oci_types::{Digest, Millis};
use reqwest::{Client, Method, RequestBuilder, StatusCode, header};
use upstream_client::{BlobBody, UpstreamError};

use super::map::OPEN_END;
use crate::routes::fills::SIGNATURE;

/// How long a peer may send nothing. Its own upstream may be slow, and it tries again: longer than an attempt there.
const SILENCE: Duration = Duration::from_secs(60);

/// How long connecting may take; nodes are near each other.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a peer may take to say whether it has a blob.
const ANSWER: Duration = Duration::from_secs(5);

/// The header that names the node which is meant: an address may lead to another one.
pub(crate) const NODE: &str = "Tidegate-Node";

/// The header by which a node says that it does not have all bytes of a blob yet.
pub(crate) const FILLING: &str = "Tidegate-Filling";

/// What a node says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has all of it.
    Stored,
    /// It fills it now: from wherever it can, and that may be from here.
    Filling,
    /// It does neither, or nothing listens there any more.
    Gone,
    /// It did not answer in time, or not sensibly.
    Unknown,
}

/// Another content node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    node_id: String,
    base: String,
}

/// Speaks to peers.
#[derive(Clone)]
pub(crate) struct PeerClient {
    http: Client,
    keys: Arc<LinkKeys>,
}

impl PeerClient {
    pub(crate) fn new(keys: Arc<LinkKeys>) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, keys })
    }

    fn request(&self, method: Method, peer: &Peer, digest: &Digest) -> RequestBuilder {
        let path = format!("/internal/v1/fills/{digest}");
        let signature = self.keys.sign_internal(method.as_str(), &path, Millis::now());
        let url = format!("{}{path}", peer.base.trim_end_matches('/'));
        self.http.request(method, url).header(SIGNATURE, signature).header(NODE, &peer.node_id)
    }

    /// Whether the peer has the blob.
    pub(crate) async fn ask(&self, peer: &Peer, digest: &Digest) -> Presence {
        match self.request(Method::HEAD, peer, digest).timeout(ANSWER).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                if answer.headers().contains_key(FILLING) {
                    Presence::Filling
                } else {
                    Presence::Stored
                }
            }
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Presence::Gone,
            // A host that is only slow to be reached is a timeout, too.
            Err(error) if error.is_connect() && !error.is_timeout() => Presence::Gone,
            Ok(_) | Err(_) => Presence::Unknown,
        }
    }

    /// Begins to read `range` of the blob; an open end reads to its end.
    ///
    /// # Errors
    /// [`UpstreamError::NotFound`] when the peer neither fills the blob nor has it; [`UpstreamError::RateLimited`] when
    /// its upstream is not to be asked now; others as they come.
    pub(crate) async fn open(
        &self,
        peer: &Peer,
        digest: &Digest,
        range: &Range<u64>,
    ) -> Result<BlobBody, UpstreamError> {
        let wanted = match range.end {
            OPEN_END => format!("bytes={}-", range.start),
            end => format!("bytes={}-{}", range.start, end.saturating_sub(1)),
        };
        let request = self.request(Method::GET, peer, digest).header(header::RANGE, wanted);
        let response = request.send().await.map_err(broken)?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let number = |text: &str| text.parse().ok();
        let length = text(header::CONTENT_LENGTH).and_then(number);
        let (start, total) = match response.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT => {
                let size = text(header::CONTENT_RANGE).and_then(|range| range.rsplit('/').next());
                (range.start, size.and_then(number))
            }
            StatusCode::NOT_FOUND => return Err(UpstreamError::NotFound),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(UpstreamError::RangeNotSatisfiable),
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = text(header::RETRY_AFTER).and_then(number).map(Duration::from_secs);
                return Err(UpstreamError::RateLimited { retry_after });
            }
            status => return Err(UpstreamError::Server { status: status.as_u16() }),
        };
        let validator = text(header::ETAG).map(str::to_owned);
        let stream = response.bytes_stream().map(|piece| piece.map_err(broken)).boxed();
        Ok(BlobBody { start, total, length, validator, stream })
    }
}

impl Peer {
    /// The node of this name, whose internal API is below `base`.
    pub(crate) fn new(node_id: String, base: String) -> Self {
        Self { node_id, base }
    }

    /// The node's name.
    pub(crate) fn node_id(&self) -> &str {
        &self.node_id
    }
}

fn broken(error: reqwest::Error) -> UpstreamError {
    if error.is_timeout() {
        UpstreamError::Timeout
    } else {
        UpstreamError::Unreachable(error.without_url().to_string())
    }
}
