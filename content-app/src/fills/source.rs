//! Where a blob's bytes come from.

use std::{fmt, ops::Range};

use futures::{StreamExt, TryStreamExt};
use internal_api::{Node, NodeBody, NodeClient, NodeError};
use oci_types::{Digest, RepositoryName};
use shared_models::db::blobs::BlobSource;
use upstream_client::{BlobBody, BlobRange, Priority, Upstream, UpstreamError};

use super::{plan::OPEN_END, read_mode::Part};

/// One place where the blob can be read.
#[derive(Clone)]
pub(crate) enum Source {
    /// A repository of an upstream that is recorded to have it.
    Upstream(UpstreamSource),
    /// Another node.
    Peer(NodeClient, Node),
}

/// A repository of an upstream.
#[derive(Clone)]
pub(crate) struct UpstreamSource {
    upstream: Upstream,
    repository: RepositoryName,
}

impl UpstreamSource {
    /// The upstream's configured name.
    pub(crate) fn upstream(&self) -> &str {
        self.upstream.name()
    }

    /// The repository there.
    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }
}

impl Source {
    /// The recorded sources that this node has an upstream for, in the order in which they are to be asked.
    pub(crate) fn among(recorded: Vec<BlobSource>, upstream: impl Fn(&str) -> Option<Upstream>) -> Vec<Self> {
        let source = |row: BlobSource| {
            Some(Self::Upstream(UpstreamSource {
                upstream: upstream(&row.upstream)?,
                repository: row.upstream_name,
            }))
        };
        recorded.into_iter().filter_map(source).collect()
    }

    /// The upstream, where this is one.
    pub(crate) fn upstream(&self) -> Option<&UpstreamSource> {
        match self {
            Self::Upstream(source) => Some(source),
            Self::Peer(..) => None,
        }
    }

    /// Begins to read `range`; an open end reads to the end of the blob. A peer is told whether it is read as a window: it
    /// shows those as they land.
    pub(crate) async fn open(
        &self,
        digest: &Digest,
        range: &Range<u64>,
        part: Part,
        size: Option<u64>,
        validator: Option<&str>,
    ) -> Result<BlobBody, UpstreamError> {
        let to_the_end = range.end == OPEN_END || Some(range.end) == size;
        match self {
            Self::Upstream(UpstreamSource { upstream, repository }) => {
                let if_range = if range.start > 0 { validator } else { None };
                let to = (!to_the_end).then_some(range.end);
                let range = BlobRange { start: range.start, end: to, if_range };
                upstream.open_blob(repository, digest, range, Priority::Client).await
            }
            Self::Peer(client, peer) => {
                let is_open = range.end == OPEN_END || (to_the_end && part.runs_to_the_end());
                let end = (!is_open).then_some(range.end);
                Ok(of_peer(client.open(peer, digest, range.start, end).await.map_err(peer_error)?))
            }
        }
    }
}

/// What a log line, and the map of a partial file, call the source.
impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(source) => write!(out, "{}/{}", source.upstream(), source.repository),
            Self::Peer(_, peer) => write!(out, "node {}", peer.id),
        }
    }
}

/// A peer is a source like an upstream.
fn of_peer(body: NodeBody) -> BlobBody {
    BlobBody {
        start: body.start,
        size: body.size,
        length: body.length,
        validator: body.etag,
        stream: body.stream.map_err(peer_error).boxed(),
    }
}

fn peer_error(error: NodeError) -> UpstreamError {
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
