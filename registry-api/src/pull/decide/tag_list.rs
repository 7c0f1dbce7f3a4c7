//! Table 5: a page of a tag list.

use oci_types::UpstreamFailure;

use super::Upstream;

/// The facts about a page of a tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TagListFacts {
    /// Whether the page was fetched within the tag TTL.
    pub(crate) cached: bool,
    /// Whether the upstream is configured as offline.
    pub(crate) offline: bool,
    /// Whether the negative cache has the repository.
    pub(crate) known_missing: bool,
}

/// What to do about a page of a tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagListDecision {
    /// Answer the page from the cache.
    ServeCached,
    /// Fetch the page from the upstream.
    Fetch,
    /// Answer the tags in the database; without any, the error.
    ListLocal(UpstreamFailure),
}

/// Table 5: a page of a tag list. A failed `fetch` leads to [`TagListDecision::ListLocal`].
pub(crate) fn tag_list(facts: TagListFacts, fetch: &Upstream<()>) -> TagListDecision {
    match (facts, fetch) {
        (_, Upstream::Failed(failure)) => TagListDecision::ListLocal(*failure),
        (TagListFacts { offline: true, .. }, _) => {
            TagListDecision::ListLocal(UpstreamFailure::Unavailable { retry_after: None })
        }
        (TagListFacts { cached: true, .. }, _) => TagListDecision::ServeCached,
        (TagListFacts { known_missing: true, .. }, _) => {
            TagListDecision::ListLocal(UpstreamFailure::NotFound)
        }
        _ => TagListDecision::Fetch,
    }
}
