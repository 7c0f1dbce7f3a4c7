//! Another node as a source.

use std::fmt;

use futures::{StreamExt as _, TryStreamExt as _};
use internal_api::{Node, NodeBody, NodeClient, NodeError};
use upstream_client::{BlobBody, UpstreamError};

use super::request::SourceRequest;

/// Another node.
#[derive(Clone)]
pub(crate) struct PeerSource {
    client: NodeClient,
    node: Node,
}

impl PeerSource {
    pub(super) fn new(client: NodeClient, node: Node) -> Self {
        Self { client, node }
    }

    /// Opens the blob at the peer. The request has no end if the rest of the blob is read in order.
    /// A peer serves a range without an end in order, after the digest is verified, and any other
    /// range as its bytes arrive.
    pub(super) async fn open(&self, request: SourceRequest<'_>) -> Result<BlobBody, UpstreamError> {
        let SourceRequest { digest, start, end, size, mode, .. } = request;
        let end = end.filter(|end| Some(*end) != size || !mode.reads_to_end());
        let body = self.client.open(&self.node, digest, start, end).await.map_err(upstream_error)?;
        let NodeBody { start, size, length, stream } = body;
        let stream = stream.map_err(upstream_error).boxed();
        Ok(BlobBody { start, size, length, stream })
    }
}

impl fmt::Display for PeerSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "node {}", self.node.id)
    }
}

fn upstream_error(error: NodeError) -> UpstreamError {
    match error {
        NodeError::NotFound => UpstreamError::NotFound,
        NodeError::RangeNotSatisfiable => UpstreamError::RangeNotSatisfiable,
        NodeError::RateLimited { retry_after } => UpstreamError::RateLimited { retry_after },
        NodeError::Status(status) => UpstreamError::Server { status },
        NodeError::Timeout => UpstreamError::Timeout,
        NodeError::Connection(_) => UpstreamError::unreachable(error.to_string()).with_source(error),
        NodeError::InvalidResponse(_) => UpstreamError::invalid_response(error.to_string()),
    }
}
