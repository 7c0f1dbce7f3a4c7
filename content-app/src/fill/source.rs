//! Where a blob's bytes come from.

use shared_models::{Digest, RepositoryName, db::blobs::BlobSource};
use upstream_client::{BlobBody, Priority, Upstream, UpstreamError};

use std::ops::Range;

use super::map::OPEN_END;

/// One upstream repository that is recorded to have the blob.
#[derive(Clone)]
pub(crate) struct Source {
    upstream: Upstream,
    repository: RepositoryName,
}

impl Source {
    /// The recorded sources that this node has an upstream for, in the order in which they are to be asked.
    pub(crate) fn among(recorded: Vec<BlobSource>, upstream: impl Fn(&str) -> Option<Upstream>) -> Vec<Self> {
        recorded
            .into_iter()
            .filter_map(|row| {
                Some(Self { upstream: upstream(&row.upstream)?, repository: row.upstream_name })
            })
            .collect()
    }

    /// The upstream's configured name.
    pub(crate) fn upstream(&self) -> &str {
        self.upstream.name()
    }

    /// The repository there.
    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Begins to read `range`; an open end reads to the end of the blob.
    pub(crate) async fn open(
        &self,
        digest: &Digest,
        range: &Range<u64>,
        size: Option<u64>,
        validator: Option<&str>,
    ) -> Result<BlobBody, UpstreamError> {
        let to_the_end = range.end == OPEN_END || Some(range.end) == size;
        let to = (!to_the_end).then_some(range.end);
        let if_range = if range.start > 0 { validator } else { None };
        self.upstream.open_blob(&self.repository, digest, range.start, to, if_range, Priority::Client).await
    }
}
