//! The decision tables of `docs/pull-through.md`: facts in, decision out, no I/O.
//!
//! Each decision is acted on by one `match`: the tables of tags in `pull/tag.rs`, of digests in `pull/manifest.rs`, of blobs
//! in `pull/blob.rs`, of lists in `pull/tag_list.rs` and `pull/referrers.rs`.

mod blob;
mod digest;
mod listing;
mod tag;

use oci_types::UpstreamFailure;
use shared_models::db::links::Proof;

pub(crate) use blob::{BlobDecision, BlobFacts, blob};
pub(crate) use digest::{
    DigestFacts, DigestHeader, DigestPullDecision, DigestRequestDecision, digest_pull, digest_request,
};
pub(crate) use listing::{KnownList, ListingDecision, ListingFacts, listing};
pub(crate) use tag::{
    LocalTag, TagCheckDecision, TagCheckFacts, TagRequestDecision, TagRequestFacts, UpstreamTag, tag_check,
    tag_request,
};

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

/// Whether the upstream may deliver by tag what it does not deliver by digest. A cache in it may name a manifest that it no
/// longer has, or that it does not have yet.
pub(crate) fn is_of_digest(failure: UpstreamFailure) -> bool {
    matches!(failure, UpstreamFailure::NotFound | UpstreamFailure::BadGateway)
}

/// Whether a repository may serve content by what its link proves. A claim suffices for bytes of the same upstream: it does
/// not prove that the upstream has bytes that came from another one.
fn is_proven(link: Option<Proof>) -> bool {
    match link {
        None => false,
        Some(Proof::Claimed { from_other_upstream }) => !from_other_upstream,
        Some(Proof::Confirmed) => true,
    }
}

#[cfg(test)]
mod tests;
