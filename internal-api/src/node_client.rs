//! The client for the internal API of content nodes.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use oci_types::{ContentRange, Digest, Millis};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};

use crate::{FillStatus, LinkKeys, signed_request::SIGNATURE_HEADER};

/// The header with the id of the node that a request is for: an address may lead to another node.
pub const NODE_HEADER: &str = "Tidegate-Node";

/// The header of a node that does not have all bytes of a blob yet.
pub const FILLING_HEADER: &str = "Tidegate-Filling";

/// Short, because nodes are expected to be in the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum time without a byte. Longer than a node waits for further bytes of an upstream. The wait for the first byte
/// may be longer: the request then times out, and is sent again.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum time until a node reports whether it has a blob.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the node waits for the end of a fill before it reports that the fill is running, in seconds.
const FILL_WAIT_SECONDS: u64 = 20;

/// The maximum time of a request to start a fill.
const FILL_TIMEOUT: Duration = Duration::from_secs(FILL_WAIT_SECONDS + 10);

/// The path of the fill of a blob.
fn fill_path(digest: &Digest) -> String {
    format!("/internal/v1/fills/{digest}")
}

/// A content node: its id and the URL of its internal API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The id.
    pub id: String,
    /// The URL, with or without a slash at its end.
    pub internal_url: String,
}

/// Whether a node has a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobPresence {
    /// The node has the whole blob.
    Stored,
    /// The node is filling it, possibly from this process.
    Filling,
    /// The node neither has nor fills it, or no process listens at its address.
    Absent,
    /// The node did not answer in time, or the answer is invalid.
    Unknown,
}

/// A failed request to a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NodeError {
    /// The node neither has nor fills the blob.
    #[error("the node does not have the blob")]
    NotFound,
    /// The range lies beyond the end of the blob.
    #[error("the range is not satisfiable")]
    RangeNotSatisfiable,
    /// The upstream of the node is rate limited.
    #[error("the upstream of the node is rate limited")]
    RateLimited {
        /// The `Retry-After` of the node.
        retry_after: Option<Duration>,
    },
    /// Another status.
    #[error("status {0}")]
    Status(u16),
    /// No answer in time.
    #[error("timeout")]
    Timeout,
    /// The connection failed or broke.
    #[error("connection failed")]
    Connection(#[source] Arc<reqwest::Error>),
    /// The answer has an unexpected form.
    #[error("invalid response: {0}")]
    InvalidResponse(&'static str),
}

impl From<reqwest::Error> for NodeError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::Connection(Arc::new(error.without_url())) }
    }
}

/// The bytes of a blob from a node.
pub struct NodeBody {
    /// The offset of the first byte in the blob.
    pub start: u64,
    /// The size of the blob in bytes.
    pub size: Option<u64>,
    /// The length of this body in bytes.
    pub length: Option<u64>,
    /// The bytes.
    pub stream: BoxStream<'static, Result<Bytes, NodeError>>,
}

impl fmt::Debug for NodeBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NodeBody")
            .field("start", &self.start)
            .field("size", &self.size)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A client for the internal API of every node.
#[derive(Clone)]
pub struct NodeClient {
    http: Client,
    keys: Arc<LinkKeys>,
}

impl NodeClient {
    /// A client that signs with `keys`. Proxies of the environment are ignored.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(keys: Arc<LinkKeys>) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, keys })
    }

    /// Starts or joins the fill of a blob at `internal_url`, which is a node or a load balancer in
    /// front of several nodes. Waits for its end for up to 20 seconds.
    ///
    /// # Errors
    /// [`NodeError`]. A failed fill is returned as a status, not as an error.
    pub async fn start_fill(&self, internal_url: &str, digest: &Digest) -> Result<FillStatus, NodeError> {
        let path = format!("{}?wait={FILL_WAIT_SECONDS}", fill_path(digest));
        let response = self.request(Method::POST, internal_url, &path).timeout(FILL_TIMEOUT).send().await?;
        if !matches!(response.status(), StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(NodeError::Status(response.status().as_u16()));
        }
        let body = response.bytes().await?;
        serde_json::from_slice(&body).map_err(|_| NodeError::InvalidResponse("not the status of a fill"))
    }

    /// Whether `node` has the blob.
    pub async fn probe(&self, node: &Node, digest: &Digest) -> BlobPresence {
        match self.blob_request(Method::HEAD, node, digest).timeout(PROBE_TIMEOUT).send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                match response.headers().contains_key(FILLING_HEADER) {
                    true => BlobPresence::Filling,
                    false => BlobPresence::Stored,
                }
            }
            Ok(response) if response.status() == StatusCode::NOT_FOUND => BlobPresence::Absent,
            // A connection timeout does not prove absence: the host may just be slow.
            Err(error) if error.is_connect() && !error.is_timeout() => BlobPresence::Absent,
            Ok(_) | Err(_) => BlobPresence::Unknown,
        }
    }

    /// Opens the bytes `range` of a blob at `node`; without an end, up to the end of the blob.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn open(
        &self,
        node: &Node,
        digest: &Digest,
        start: u64,
        end: Option<u64>,
    ) -> Result<NodeBody, NodeError> {
        let last = end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
        let request = self
            .blob_request(Method::GET, node, digest)
            .header(header::RANGE, format!("bytes={start}-{last}"));
        let response = request.send().await?;
        let length = header_text(&response, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let (start, size) = match response.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT => {
                let content_range = header_text(&response, header::CONTENT_RANGE);
                match content_range.and_then(ContentRange::parse) {
                    // A node always states both.
                    Some(ContentRange { range: Some(range), size: Some(size) }) => (range.start, Some(size)),
                    _ => return Err(NodeError::InvalidResponse("no valid Content-Range")),
                }
            }
            StatusCode::NOT_FOUND => return Err(NodeError::NotFound),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(NodeError::RangeNotSatisfiable),
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = header_text(&response, header::RETRY_AFTER).and_then(|text| text.parse().ok());
                return Err(NodeError::RateLimited { retry_after: seconds.map(Duration::from_secs) });
            }
            status => return Err(NodeError::Status(status.as_u16())),
        };
        let stream = response.bytes_stream().map(|chunk| chunk.map_err(NodeError::from)).boxed();
        Ok(NodeBody { start, size, length, stream })
    }

    fn blob_request(&self, method: Method, node: &Node, digest: &Digest) -> RequestBuilder {
        self.request(method, &node.internal_url, &fill_path(digest)).header(NODE_HEADER, &node.id)
    }

    fn request(&self, method: Method, internal_url: &str, path: &str) -> RequestBuilder {
        let signature = self.keys.sign_request(method.as_str(), path, Millis::now());
        let url = format!("{}{path}", internal_url.trim_end_matches('/'));
        self.http.request(method, url).header(SIGNATURE_HEADER, signature)
    }
}

fn header_text(response: &Response, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}
