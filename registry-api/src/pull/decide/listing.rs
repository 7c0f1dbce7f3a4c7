//! Table 5: a page of a tag list, or the referrers of a manifest.

use oci_types::UpstreamFailure;

/// The facts about a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListingFacts {
    /// Whether the list is known here, or the requested page of it.
    pub(crate) known: KnownList,
    /// Whether the upstream is configured as offline.
    pub(crate) offline: bool,
    /// The refusal of the upstream in the negative cache.
    pub(crate) refusal: Option<UpstreamFailure>,
    /// Why the upstream did not deliver the list, or the part of it that is missing.
    pub(crate) failure: Option<UpstreamFailure>,
}

/// Whether what is requested is in the list that was fetched from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownList {
    /// It is not.
    None,
    /// It was fetched within the tag TTL, or for this request.
    Fresh,
    /// It was fetched before.
    Outdated,
}

/// What to do about a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListingDecision {
    /// Answer the list that was fetched.
    ServeKnown,
    /// Answer the list that was fetched although the upstream did not confirm it.
    ServeOutdated(UpstreamFailure),
    /// Fetch the next part of the list from the upstream, and decide again.
    Fetch,
    /// Answer what the database has; without anything, the error.
    ListLocal(UpstreamFailure),
}

/// Table 5.
pub(crate) fn listing(facts: ListingFacts) -> ListingDecision {
    let offline = facts.offline.then_some(UpstreamFailure::Unavailable { retry_after: None });
    match (facts.known, facts.failure.or(facts.refusal).or(offline)) {
        (KnownList::Fresh, _) => ListingDecision::ServeKnown,
        (KnownList::Outdated, Some(failure)) => ListingDecision::ServeOutdated(failure),
        (KnownList::None, Some(failure)) => ListingDecision::ListLocal(failure),
        (_, None) => ListingDecision::Fetch,
    }
}
