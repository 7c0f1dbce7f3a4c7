//! The decision tables of `docs/pull-through.md`: facts in, decision out, no I/O.
//!
//! Each decision is acted on by one `match`: the tables of tags in `tag.rs`, of digests in `manifest.rs`, of blobs in
//! `blob.rs`, of tag lists in `tag_list.rs`.

use oci_types::{Digest, UpstreamFailure};

use crate::answer::ManifestHeaders;

/// The answer of an upstream to the request for a manifest, a blob or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upstream<T> {
    /// No request was sent yet.
    NotAsked,
    /// The upstream has the content.
    Has(T),
    /// The upstream does not have it, or did not answer.
    Failed(UpstreamFailure),
}

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
    /// Whether the negative cache has the tag.
    pub(crate) known_missing: bool,
    /// Whether the check has taken longer than `revalidate_wait`.
    pub(crate) check_is_slow: bool,
}

/// What to do about a request for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagRequestDecision {
    /// Serve the local copy, which is fresh.
    ServeFresh,
    /// Serve the local copy without waiting longer for the check, which continues.
    ServeStale(UpstreamFailure),
    /// Answer 404 from the negative cache.
    RefuseKnownMissing,
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
        TagRequestFacts { local, check_is_slow: true, .. } => match local {
            Some(LocalTag { within_stale_limit: true, .. }) => {
                TagRequestDecision::ServeStale(UpstreamFailure::Timeout)
            }
            _ => TagRequestDecision::Refuse(UpstreamFailure::Timeout),
        },
        TagRequestFacts { local: Some(_), .. } => TagRequestDecision::CheckWithinWait,
        TagRequestFacts { known_missing: true, .. } => TagRequestDecision::RefuseKnownMissing,
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
        /// The headers of an answer, where the upstream sent all of them.
        headers: Option<ManifestHeaders>,
    },
    /// The upstream sent no `Docker-Content-Digest`.
    NoDigestHeader,
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
    /// Whether the client wants headers only and nothing is to be fetched for it (`fetch_on_head = false`).
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
        (Upstream::Has(UpstreamTag::NoDigestHeader), _) => TagCheckDecision::FetchByTag,
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

/// What makes content readable through a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing.
    Absent,
    /// A manifest of the repository names the content.
    #[cfg_attr(not(test), expect(dead_code, reason = "the database does not distinguish claims yet"))]
    Claimed,
    /// The upstream has confirmed the content for this repository.
    Confirmed,
}

/// Whether a link proves that the repository may serve the content. A claim does for bytes of the same upstream: it
/// would not prove that the upstream has bytes that came from another one.
fn is_proven(link: Link, from_other_upstream: bool) -> bool {
    match link {
        Link::Absent => false,
        Link::Claimed => !from_other_upstream,
        Link::Confirmed => true,
    }
}

/// The facts about a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestFacts {
    /// What makes it readable through the repository.
    pub(crate) link: Link,
    /// Whether its bytes are present, through any repository.
    pub(crate) bytes_present: bool,
    /// Whether the bytes came from another upstream.
    pub(crate) from_other_upstream: bool,
}

/// What to do about a request for a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DigestRequestDecision {
    /// Serve the bytes that are present.
    Serve,
    /// Answer 404 from the negative cache.
    RefuseKnownMissing,
    /// Start or join the pull of the digest.
    Pull,
}

/// Table 3, upper part: the request for a manifest by digest.
pub(crate) fn digest_request(facts: &DigestFacts, known_missing: bool) -> DigestRequestDecision {
    match digest_pull(facts, &Upstream::NotAsked) {
        DigestPullDecision::Serve => DigestRequestDecision::Serve,
        _ if known_missing => DigestRequestDecision::RefuseKnownMissing,
        _ => DigestRequestDecision::Pull,
    }
}

/// Whether an upstream that answered `HEAD` for a digest sent `Docker-Content-Digest`. One that refuses the method does not,
/// and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestHeader {
    /// The digest of the request.
    Sent,
    /// None.
    Missing,
}

/// What to do about the pull of a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DigestPullDecision {
    /// Serve the bytes that are present.
    Serve,
    /// Request confirmation from the upstream.
    Head,
    /// Get it; its bytes must have the digest.
    Fetch,
    /// Link the manifest, which is present, and its content; then serve it.
    LinkExisting,
    /// Answer an error.
    Refuse(UpstreamFailure),
}

/// Table 3, lower part: the pull of a manifest by digest.
pub(crate) fn digest_pull(facts: &DigestFacts, upstream: &Upstream<DigestHeader>) -> DigestPullDecision {
    if facts.bytes_present && is_proven(facts.link, facts.from_other_upstream) {
        return DigestPullDecision::Serve;
    }
    match upstream {
        Upstream::Failed(failure) => DigestPullDecision::Refuse(*failure),
        _ if !facts.bytes_present => DigestPullDecision::Fetch,
        Upstream::NotAsked => DigestPullDecision::Head,
        Upstream::Has(DigestHeader::Sent) => DigestPullDecision::LinkExisting,
        Upstream::Has(DigestHeader::Missing) => DigestPullDecision::Fetch,
    }
}

/// The facts about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobFacts {
    /// Whether it is one of the two constant blobs.
    pub(crate) constant: bool,
    /// What makes it readable through the repository. A pending link is confirmed.
    pub(crate) link: Link,
    /// Whether its bytes are stored.
    pub(crate) stored: bool,
    /// Whether its bytes came from another upstream, or may be fetched from one.
    pub(crate) from_other_upstream: bool,
    /// Whether clients can be redirected to the object store for stored blobs.
    pub(crate) presigned: bool,
    /// Whether the negative cache has the blob.
    pub(crate) known_missing: bool,
    /// The answer of the upstream.
    pub(crate) upstream: Upstream<()>,
    /// Whether the request is `HEAD`.
    pub(crate) head: bool,
}

/// What to do about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobDecision {
    /// Answer the constant bytes.
    Constant,
    /// Answer the size and the digest, without a redirect or a download.
    Describe,
    /// Redirect to the object store; without a URL, decide again.
    Presign,
    /// Redirect to content-app.
    Redirect,
    /// Answer 404 from the negative cache.
    RefuseKnownMissing,
    /// Request confirmation from the upstream, record it, and decide again.
    Head,
    /// Answer an error.
    Refuse(UpstreamFailure),
}

/// Table 4: a blob.
pub(crate) fn blob(facts: &BlobFacts) -> BlobDecision {
    let proven = is_proven(facts.link, facts.from_other_upstream) || facts.upstream == Upstream::Has(());
    match facts {
        BlobFacts { constant: true, .. } => BlobDecision::Constant,
        BlobFacts { head: true, .. } if proven => BlobDecision::Describe,
        BlobFacts { stored: true, presigned: true, .. } if proven => BlobDecision::Presign,
        _ if proven => BlobDecision::Redirect,
        BlobFacts { upstream: Upstream::Failed(failure), .. } => BlobDecision::Refuse(*failure),
        BlobFacts { known_missing: true, .. } => BlobDecision::RefuseKnownMissing,
        BlobFacts { .. } => BlobDecision::Head,
    }
}

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

#[cfg(test)]
mod tests;
