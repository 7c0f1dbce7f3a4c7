//! Table 4: a blob.

use oci_types::UpstreamFailure;
use shared_models::db::links::Proof;

use super::{Upstream, is_proven};

/// The facts about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobFacts {
    /// Whether it is one of the two constant blobs.
    pub(crate) constant: bool,
    /// What the link of the repository proves, where there is one. A pending link is confirmed.
    pub(crate) link: Option<Proof>,
    /// Whether its bytes are stored.
    pub(crate) stored: bool,
    /// Whether clients can be redirected to the object store for stored blobs.
    pub(crate) presigned: bool,
    /// Whether the negative cache has the blob.
    pub(crate) known_refusal: bool,
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
    /// Answer the refusal from the negative cache.
    RefuseKnown,
    /// Request confirmation from the upstream, record it, and decide again.
    Head,
    /// Answer an error.
    Refuse(UpstreamFailure),
}

/// Table 4: a blob.
pub(crate) fn blob(facts: &BlobFacts) -> BlobDecision {
    let proven = is_proven(facts.link) || facts.upstream == Upstream::Has(());
    match facts {
        BlobFacts { constant: true, .. } => BlobDecision::Constant,
        BlobFacts { head: true, .. } if proven => BlobDecision::Describe,
        BlobFacts { stored: true, presigned: true, .. } if proven => BlobDecision::Presign,
        _ if proven => BlobDecision::Redirect,
        BlobFacts { upstream: Upstream::Failed(failure), .. } => BlobDecision::Refuse(*failure),
        BlobFacts { known_refusal: true, .. } => BlobDecision::RefuseKnown,
        BlobFacts { .. } => BlobDecision::Head,
    }
}
