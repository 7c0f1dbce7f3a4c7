//! Table 2: a manifest by tag.

use oci_types::{Digest, UpstreamFailure};

use super::Upstream;
use crate::answer::ManifestHeaders;

/// A tag in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalTag {
    /// The manifest that it names.
    pub(crate) digest: Digest,
    /// Whether it was checked within the tag's TTL, is immutable, or its upstream is offline.
    pub(crate) fresh: bool,
    /// Whether it may be served when the upstream does not confirm it.
    pub(crate) within_stale_limit: bool,
    /// Whether another process has recorded a check that began after the check of this pull.
    pub(crate) checked_later: bool,
}

/// The facts about a request for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagRequestFacts {
    /// The tag in the database.
    pub(crate) local: Option<LocalTag>,
    /// For `HEAD`: the manifest that the upstream named within the tag's TTL, if it is not present.
    pub(crate) named: Option<ManifestHeaders>,
    /// Whether the negative cache has the tag.
    pub(crate) known_refusal: bool,
    /// Whether the check has taken longer than `revalidate_wait`.
    pub(crate) check_is_slow: bool,
}

/// What to do about a request for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagRequestDecision {
    /// Serve the local copy, which is fresh.
    ServeFresh,
    /// Answer the headers that the upstream sent.
    AnswerHeaders(ManifestHeaders),
    /// Serve the local copy without waiting longer for the check, which continues.
    ServeStale(UpstreamFailure),
    /// Answer the refusal from the negative cache.
    RefuseKnown,
    /// Answer an error.
    Refuse(UpstreamFailure),
    /// Start or join the check of the tag, and wait for it for `revalidate_wait`.
    CheckWithinWait,
    /// Start or join the check of the tag, and wait for its end.
    Check,
}

/// Table 2, upper part: the request for a tag, before and while the tag is checked.
pub(crate) fn tag_request(facts: &TagRequestFacts) -> TagRequestDecision {
    match facts {
        TagRequestFacts { local: Some(LocalTag { fresh: true, .. }), .. } => TagRequestDecision::ServeFresh,
        TagRequestFacts { named: Some(headers), .. } => TagRequestDecision::AnswerHeaders(headers.clone()),
        TagRequestFacts { local, check_is_slow: true, .. } => match local {
            Some(LocalTag { within_stale_limit: true, .. }) => {
                TagRequestDecision::ServeStale(UpstreamFailure::Timeout)
            }
            _ => TagRequestDecision::Refuse(UpstreamFailure::Timeout),
        },
        TagRequestFacts { local: Some(_), .. } => TagRequestDecision::CheckWithinWait,
        TagRequestFacts { known_refusal: true, .. } => TagRequestDecision::RefuseKnown,
        TagRequestFacts { .. } => TagRequestDecision::Check,
    }
}

/// The manifest that a tag names at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpstreamTag {
    /// The upstream sent its digest.
    Digest {
        /// The digest.
        digest: Digest,
        /// Whether any repository has stored the manifest.
        bytes_present: bool,
        /// The headers of an answer, where the upstream sent all of them, and they are plausible.
        headers: Option<ManifestHeaders>,
    },
    /// The upstream sent no `Docker-Content-Digest`, or that of a manifest that it does not deliver.
    NoUsableDigest,
}

/// The facts about the check of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagCheckFacts {
    /// The tag in the database; after `recorded`, as it is now.
    pub(crate) local: Option<LocalTag>,
    /// The answer of the upstream.
    pub(crate) upstream: Upstream<UpstreamTag>,
    /// Whether this check has recorded where the tag points.
    pub(crate) recorded: bool,
    /// Whether the request is `HEAD`: nothing is fetched for it.
    pub(crate) headers_only: bool,
    /// Whether a tag that the upstream has deleted is still served.
    pub(crate) serve_deleted: bool,
}

/// What to do about the check of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagCheckDecision {
    /// Request the digest of the tag from the upstream.
    Head,
    /// Answer the headers that the upstream sent, and fetch nothing.
    AnswerHeaders(ManifestHeaders),
    /// Get the manifest by its digest, then record it and the tag.
    Fetch(Digest),
    /// Get the manifest by its tag: its digest is computed from its bytes.
    FetchByTag,
    /// Link the manifest, which is present, and its content; record the tag.
    LinkExisting(Digest),
    /// Record that the upstream has confirmed the tag.
    RecordCheck(Digest),
    /// Serve the manifest that the tag names in the database.
    Serve(Digest),
    /// Serve the local copy although the upstream did not confirm it.
    ServeStale(Digest, UpstreamFailure),
    /// Answer an error.
    Refuse(UpstreamFailure),
}

/// Table 2, lower part: the check of a tag.
pub(crate) fn tag_check(facts: &TagCheckFacts) -> TagCheckDecision {
    let local = facts.local.as_ref();
    match (&facts.upstream, local) {
        (Upstream::NotAsked, Some(local)) if local.fresh => TagCheckDecision::Serve(local.digest.clone()),
        (Upstream::NotAsked, _) => TagCheckDecision::Head,
        (Upstream::Has(_), Some(local)) if facts.recorded || local.checked_later => {
            TagCheckDecision::Serve(local.digest.clone())
        }
        (Upstream::Has(UpstreamTag::NoUsableDigest), _) => TagCheckDecision::FetchByTag,
        (Upstream::Has(UpstreamTag::Digest { digest, .. }), Some(local)) if local.digest == *digest => {
            TagCheckDecision::RecordCheck(digest.clone())
        }
        (Upstream::Has(UpstreamTag::Digest { digest, bytes_present: true, .. }), _) => {
            TagCheckDecision::LinkExisting(digest.clone())
        }
        (Upstream::Has(UpstreamTag::Digest { headers: Some(headers), .. }), _) if facts.headers_only => {
            TagCheckDecision::AnswerHeaders(headers.clone())
        }
        (Upstream::Has(UpstreamTag::Digest { digest, .. }), _) => TagCheckDecision::Fetch(digest.clone()),
        (Upstream::Failed(UpstreamFailure::NotFound), Some(_)) if !facts.serve_deleted => {
            TagCheckDecision::Refuse(UpstreamFailure::NotFound)
        }
        (Upstream::Failed(failure), Some(local)) if local.within_stale_limit => {
            TagCheckDecision::ServeStale(local.digest.clone(), *failure)
        }
        (Upstream::Failed(failure), _) => TagCheckDecision::Refuse(*failure),
    }
}
