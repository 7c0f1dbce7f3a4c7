//! A repository of an upstream as a source.

use std::{collections::HashMap, fmt};

use oci_types::{Digest, RepositoryName};
use shared_models::db::blobs::BlobSource;
use upstream_client::{BlobBody, BlobRange, Priority, Upstream, UpstreamError};

use super::request::SourceRequest;
use crate::read_mode::ReadMode;

/// A repository of an upstream.
#[derive(Clone)]
pub(crate) struct UpstreamSource {
    upstream: Upstream,
    repository: RepositoryName,
}

impl UpstreamSource {
    /// The sources among `recorded` whose upstream is configured, in the order of preference.
    pub(crate) fn configured(recorded: &[BlobSource], upstreams: &HashMap<String, Upstream>) -> Vec<Self> {
        let source = |row: &BlobSource| {
            let upstream = upstreams.get(&row.upstream)?.clone();
            Some(Self { upstream, repository: row.upstream_name.clone() })
        };
        recorded.iter().filter_map(source).collect()
    }

    /// The configured name of the upstream.
    pub(crate) fn upstream(&self) -> &str {
        self.upstream.name()
    }

    /// The name of the repository at the upstream.
    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The size of the blob in bytes, if the upstream states it.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(crate) async fn head(&self, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        Ok(self.upstream.head_blob(&self.repository, digest, Priority::Client).await?.size)
    }

    pub(super) async fn open(&self, request: SourceRequest<'_>) -> Result<BlobBody, UpstreamError> {
        let SourceRequest { digest, start, end, size, mode, first_byte } = request;
        let end = end.filter(|end| Some(*end) != size);
        let open =
            |range| self.upstream.open_blob(&self.repository, digest, range, first_byte, Priority::Client);
        match open(BlobRange { start, end }).await {
            // The source may serve the blob, but not its ranges.
            Err(error) if start > 0 && mode != ReadMode::Range && is_refusal(&error) => {
                tracing::info!(%digest, source = %self, %error, "range refused, requesting the whole blob");
                open(BlobRange::default()).await
            }
            opened => opened,
        }
    }
}

/// Whether a request without a range may succeed after a request for a range failed with this
/// error.
fn is_refusal(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotFound
        | UpstreamError::Denied
        | UpstreamError::RangeNotSatisfiable
        | UpstreamError::InvalidResponse(_) => true,
        UpstreamError::Server { status } => !matches!(status, 502..=504),
        _ => false,
    }
}

impl fmt::Display for UpstreamSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.upstream(), self.repository)
    }
}
