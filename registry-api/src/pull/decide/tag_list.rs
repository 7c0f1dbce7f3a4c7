//! Table 5: a page of a tag list.

use oci_types::UpstreamFailure;

/// The facts about a page of a tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TagListFacts {
    /// Whether the page is known here.
    pub(crate) known: KnownPage,
    /// Whether the upstream is configured as offline.
    pub(crate) offline: bool,
    /// The refusal of the upstream in the negative cache.
    pub(crate) refusal: Option<UpstreamFailure>,
    /// Why the upstream did not deliver the list, or the part of it that is missing.
    pub(crate) failure: Option<UpstreamFailure>,
}

/// Whether a page is in the list that was collected from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownPage {
    /// It is not.
    None,
    /// It was fetched within the tag TTL, or for this request.
    Fresh,
    /// It was fetched before.
    Outdated,
}

/// What to do about a page of a tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagListDecision {
    /// Answer the page of the collected list.
    ServeKnown,
    /// Answer the page of the collected list although the upstream did not confirm it.
    ServeOutdated(UpstreamFailure),
    /// Fetch the next part of the list from the upstream, and decide again.
    Fetch,
    /// Answer the tags in the database; without any, the error.
    ListLocal(UpstreamFailure),
}

/// Table 5: a page of a tag list.
pub(crate) fn tag_list(facts: TagListFacts) -> TagListDecision {
    let offline = facts.offline.then_some(UpstreamFailure::Unavailable { retry_after: None });
    match (facts.known, facts.failure.or(offline)) {
        (KnownPage::Fresh, _) => TagListDecision::ServeKnown,
        (KnownPage::Outdated, Some(failure)) => TagListDecision::ServeOutdated(failure),
        (KnownPage::None, Some(failure)) => TagListDecision::ListLocal(failure),
        (_, None) => facts.refusal.map_or(TagListDecision::Fetch, TagListDecision::ListLocal),
    }
}
