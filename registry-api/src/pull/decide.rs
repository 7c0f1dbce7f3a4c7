//! The decision tables of `docs/pull-through.md`: facts in, decision out, no I/O.
//!
//! Each decision is acted on by one `match`: the tables of tags in `pull/tag.rs`, of digests in `pull/manifest.rs`, of blobs
//! in `pull/blob.rs`, of tag lists in `pull/tag_list.rs`.

mod blob;
mod digest;
mod tag;
mod tag_list;

use oci_types::UpstreamFailure;

pub(crate) use blob::{BlobDecision, BlobFacts, blob};
pub(crate) use digest::{
    DigestFacts, DigestHeader, DigestPullDecision, DigestRequestDecision, digest_pull, digest_request,
};
pub(crate) use tag::{
    LocalTag, TagCheckDecision, TagCheckFacts, TagRequestDecision, TagRequestFacts, UpstreamTag, tag_check,
    tag_request,
};
pub(crate) use tag_list::{TagListDecision, TagListFacts, tag_list};

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

#[cfg(test)]
mod tests;
