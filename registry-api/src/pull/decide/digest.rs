//! Table 3: a manifest by digest.

use oci_types::UpstreamFailure;
use shared_models::db::links::Proof;

use super::{Upstream, is_proven};

/// The facts about a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestFacts {
    /// What the link of the repository proves, where there is one.
    pub(crate) link: Option<Proof>,
    /// Whether its bytes are present, through any repository.
    pub(crate) bytes_present: bool,
}

/// What to do about a request for a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DigestRequestDecision {
    /// Serve the bytes that are present.
    Serve,
    /// Answer the refusal from the negative cache.
    RefuseKnown,
    /// Start or join the pull of the digest.
    Pull,
}

/// Table 3, upper part: the request for a manifest by digest.
pub(crate) fn digest_request(facts: &DigestFacts, known_refusal: bool) -> DigestRequestDecision {
    match digest_pull(facts, &Upstream::NotAsked) {
        DigestPullDecision::Serve => DigestRequestDecision::Serve,
        _ if known_refusal => DigestRequestDecision::RefuseKnown,
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
    if facts.bytes_present && is_proven(facts.link) {
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
