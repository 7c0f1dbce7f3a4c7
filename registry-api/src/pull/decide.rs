//! The decision tables of `docs/pull-through.md`: facts in, decision out, no I/O.

use std::time::Duration;

use oci_types::Digest;

/// What upstream said of a manifest or a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upstream<T> {
    /// It has not been asked yet.
    NotAsked,
    /// It has it.
    Has(T),
    /// It has not, or did not say.
    Failed(Failure),
}

/// Why upstream did not give what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// 404.
    NotFound,
    /// 401 or 403.
    Denied,
    /// 429.
    RateLimited {
        /// Upstream's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx, no connection, or an answer that makes no sense.
    Bad,
    /// No answer in time.
    Timeout,
    /// It is not asked: the circuit is open, or the upstream is set offline.
    Unavailable {
        /// When it may be asked again, where that is known.
        retry_after: Option<Duration>,
    },
}

/// What a client is told when nothing can be served.
pub(crate) type Refusal = Failure;

/// The manifest that upstream has under a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tagged {
    /// Its digest, and whether its bytes are here already.
    As {
        /// What the tag names upstream.
        digest: Digest,
        /// Whether any repository has stored its bytes.
        bytes_here: bool,
    },
    /// Upstream told no digest.
    Unnamed,
}

/// A tag that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalTag {
    /// What it names here.
    pub(crate) digest: Digest,
    /// Checked within its TTL, immutable, or not to be asked about.
    pub(crate) fresh: bool,
    /// Whether it may still be served when upstream cannot say.
    pub(crate) within_stale_limit: bool,
}

/// All that the decision about a tag depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagFacts {
    /// The tag as it is known here.
    pub(crate) local: Option<LocalTag>,
    /// What upstream said of it.
    pub(crate) upstream: Upstream<Tagged>,
    /// Whether upstream was asked for the bytes, too, and failed.
    pub(crate) serve_deleted: bool,
}

/// What to do about a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagDecision {
    /// Ask upstream where the tag points.
    Ask,
    /// Serve the copy, which is fresh.
    Serve(Digest),
    /// Serve the copy, which upstream has just confirmed; note the check.
    Revalidated(Digest),
    /// Serve the copy although upstream could not confirm it.
    Stale(Digest, Failure),
    /// Point the tag at a manifest that is here; link it and its content.
    Adopt(Digest),
    /// Get the manifest by its digest, then point the tag at it.
    Fetch(Digest),
    /// Get the manifest by the tag: only its bytes tell its digest.
    FetchUnnamed,
    /// Answer an error.
    Refuse(Refusal),
}

/// Table 2: a manifest by tag.
pub(crate) fn tag(facts: &TagFacts) -> TagDecision {
    let local = facts.local.as_ref();
    match (&facts.upstream, local) {
        (Upstream::NotAsked, Some(local)) if local.fresh => TagDecision::Serve(local.digest.clone()),
        (Upstream::NotAsked, _) => TagDecision::Ask,
        (Upstream::Has(Tagged::Unnamed), _) => TagDecision::FetchUnnamed,
        (Upstream::Has(Tagged::As { digest, .. }), Some(local)) if local.digest == *digest => {
            TagDecision::Revalidated(digest.clone())
        }
        (Upstream::Has(Tagged::As { digest, bytes_here: true }), _) => TagDecision::Adopt(digest.clone()),
        (Upstream::Has(Tagged::As { digest, bytes_here: false }), _) => TagDecision::Fetch(digest.clone()),
        (Upstream::Failed(Failure::NotFound), Some(_)) if !facts.serve_deleted => {
            TagDecision::Refuse(Failure::NotFound)
        }
        (Upstream::Failed(failure), Some(local)) if local.within_stale_limit => {
            TagDecision::Stale(local.digest.clone(), *failure)
        }
        (Upstream::Failed(failure), _) => TagDecision::Refuse(*failure),
    }
}

/// All that the decision about a digest depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DigestFacts {
    /// Whether this repository may serve it: linked, child of a linked index, or pending.
    pub(crate) linked: bool,
    /// Whether its bytes are here, by any repository.
    pub(crate) bytes_here: bool,
}

/// What to do about a manifest by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DigestDecision {
    /// Serve what is here.
    Serve,
    /// Ask upstream whether this repository has it; then link it and its content, and serve it.
    AskToAdopt,
    /// Get it; the bytes must hash to the digest asked for.
    Fetch,
    /// Answer an error.
    Refuse(Refusal),
}

/// Table 3: a manifest by digest. `upstream` is what it said when it was asked to confirm or to send the manifest.
pub(crate) fn digest(facts: DigestFacts, upstream: &Upstream<()>) -> DigestDecision {
    match (facts, upstream) {
        (DigestFacts { linked: true, bytes_here: true }, _) => DigestDecision::Serve,
        (_, Upstream::Failed(failure)) => DigestDecision::Refuse(*failure),
        (DigestFacts { bytes_here: false, .. }, _) => DigestDecision::Fetch,
        (DigestFacts { linked: false, bytes_here: true }, Upstream::NotAsked) => DigestDecision::AskToAdopt,
        (DigestFacts { linked: false, bytes_here: true }, Upstream::Has(())) => DigestDecision::Serve,
    }
}

/// All that the decision about a blob depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobFacts {
    /// Whether it is one of the two constants.
    pub(crate) constant: bool,
    /// Whether this repository may serve it, pending or not.
    pub(crate) linked: bool,
    /// Whether its verified bytes are stored.
    pub(crate) stored: bool,
    /// Whether clients can be sent to the object store for what is stored.
    pub(crate) presigned: bool,
    /// What upstream said of it.
    pub(crate) upstream: Upstream<()>,
    /// Whether the client asked for headers only.
    pub(crate) head: bool,
}

/// What to do about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobDecision {
    /// Answer the constant bytes.
    Constant,
    /// Answer size and digest, without a redirect and without a download.
    Describe,
    /// Send the client to content-app, where the bytes are, or will be.
    Redirect,
    /// Send the client to the object store; where no URL can be signed, decide again.
    Presign,
    /// Ask upstream whether the repository has it.
    Ask,
    /// Record it as on-demand and link it as pending; then decide again.
    RecordPending,
    /// Answer an error.
    Refuse(Refusal),
}

/// Table 4: a blob.
pub(crate) fn blob(facts: &BlobFacts) -> BlobDecision {
    match facts {
        BlobFacts { constant: true, .. } => BlobDecision::Constant,
        BlobFacts { linked: true, head: true, .. } => BlobDecision::Describe,
        BlobFacts { linked: true, stored: true, presigned: true, .. } => BlobDecision::Presign,
        BlobFacts { linked: true, .. } => BlobDecision::Redirect,
        BlobFacts { upstream: Upstream::NotAsked, .. } => BlobDecision::Ask,
        BlobFacts { upstream: Upstream::Has(()), .. } => BlobDecision::RecordPending,
        BlobFacts { upstream: Upstream::Failed(failure), .. } => BlobDecision::Refuse(*failure),
    }
}

#[cfg(test)]
mod tests;
