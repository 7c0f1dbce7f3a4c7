//! A repository of an upstream as a source.

use std::{collections::HashMap, fmt};

use oci_types::RepositoryName;
use shared_models::db::blobs::BlobSource;
use upstream_client::{BlobBody, BlobRange, Priority, Upstream, UpstreamError};

use super::request::SourceRequest;

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

    pub(super) async fn open(&self, request: SourceRequest<'_>) -> Result<BlobBody, UpstreamError> {
        let SourceRequest { digest, start, end, size, validator, .. } = request;
        let end = end.filter(|end| Some(*end) != size);
        let if_range = validator.filter(|_| start > 0);
        let range = BlobRange { start, end, if_range };
        self.upstream.open_blob(&self.repository, digest, range, Priority::Client).await
    }
}

impl fmt::Display for UpstreamSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.upstream(), self.repository)
    }
}
