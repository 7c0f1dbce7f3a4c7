//! The sources of a blob: repositories of upstreams, and peers.

mod choice;
mod lease;
mod peer;
mod request;
mod sources;
mod upstream;

use std::fmt;

use bytes::Bytes;
use upstream_client::{BlobBody, UpstreamError};

pub(crate) use choice::{Choice, Contributors, Next};
pub(crate) use peer::PeerSource;
pub(crate) use request::{SourceBody, SourceRequest};
pub(crate) use sources::{Resumption, Sources};
pub(crate) use upstream::UpstreamSource;

/// A source of a blob.
#[derive(Clone)]
pub(crate) enum Source {
    /// A repository of an upstream.
    Upstream(UpstreamSource),
    /// Another node.
    Peer(PeerSource),
}

impl Source {
    /// The upstream and repository, unless this is a peer.
    pub(crate) fn upstream(&self) -> Option<&UpstreamSource> {
        match self {
            Self::Upstream(source) => Some(source),
            Self::Peer(_) => None,
        }
    }

    /// The service behind the source. Sources of one service fail together.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::Upstream(source) => source.upstream().to_owned(),
            Self::Peer(source) => source.to_string(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`UpstreamError`], of a peer too; [`UpstreamError::InvalidResponse`] where the answer begins after the requested start.
    pub(crate) async fn open(&self, request: SourceRequest<'_>) -> Result<SourceBody, UpstreamError> {
        let body = match self {
            Self::Upstream(source) => source.open(request).await?,
            Self::Peer(source) => source.open(request).await?,
        };
        let skip = request
            .start
            .checked_sub(body.start)
            .ok_or_else(|| UpstreamError::invalid_response("range that begins after the requested start"))?;
        let BlobBody { start, size, length, stream } = body;
        Ok(SourceBody { size, is_length: start == 0 && size == length, skip, stream })
    }
}

/// The length of `bytes`.
pub(crate) fn byte_length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The name of the source in logs and in segment maps.
impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(source) => source.fmt(out),
            Self::Peer(source) => source.fmt(out),
        }
    }
}
