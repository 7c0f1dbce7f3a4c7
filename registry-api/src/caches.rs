//! What is kept in memory beside the database, each entry for a bounded time.

use std::{sync::Arc, time::Duration};

use moka::{Equivalent, future::Cache};
use oci_types::{Digest, RepositoryName, Tag};
use shared_models::db::{blobs::BlobRow, manifests::StoredManifest, tags::TagRow};

/// What a name in a repository may be: the key of what upstream was found not to have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Missing {
    Reference(RepositoryName, String),
    Blob(RepositoryName, Digest),
    TagList(RepositoryName),
}

/// The key of what a repository has, to look it up with and not to keep: its hash is that of the tuple.
#[derive(Hash)]
pub(crate) struct In<'a, T>(pub(crate) &'a RepositoryName, pub(crate) &'a T);

impl<T: Eq> Equivalent<(RepositoryName, T)> for In<'_, T> {
    fn equivalent(&self, (repository, other): &(RepositoryName, T)) -> bool {
        self.1 == other && self.0 == repository
    }
}

/// The caches of one process. What they say of a repository is at most `cache_max_age` old.
pub(crate) struct Memory {
    /// By digest, so never out of date; what a repository may read is asked of `links` first.
    pub(crate) manifests: Cache<Digest, Arc<StoredManifest>>,
    pub(crate) tags: Cache<(RepositoryName, Tag), TagRow>,
    /// The manifests that a repository may serve. Only what is linked is in here.
    pub(crate) links: Cache<(RepositoryName, Digest), ()>,
    /// The blobs that a repository may serve. Only what is linked is in here.
    pub(crate) blobs: Cache<(RepositoryName, Digest), BlobRow>,
    /// What upstream said 404 to a moment ago.
    pub(crate) missing: Cache<Missing, ()>,
}

/// The most entries of each cache that is not bounded in bytes.
const MOST_ENTRIES: u64 = 100_000;

impl Memory {
    pub(crate) fn new(manifest_bytes: u64, max_age: Duration, negative_ttl: Duration) -> Self {
        let size = |_: &Digest, manifest: &Arc<StoredManifest>| {
            u32::try_from(manifest.body.len()).unwrap_or(u32::MAX)
        };
        Self {
            manifests: Cache::builder().weigher(size).max_capacity(manifest_bytes).build(),
            tags: Cache::builder().max_capacity(MOST_ENTRIES).time_to_live(max_age).build(),
            links: Cache::builder().max_capacity(MOST_ENTRIES).time_to_live(max_age).build(),
            blobs: Cache::builder().max_capacity(MOST_ENTRIES).time_to_live(max_age).build(),
            missing: Cache::builder().max_capacity(MOST_ENTRIES).time_to_live(negative_ttl).build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_repository_has_is_found_by_borrowed_names() {
        let memory = Memory::new(0, Duration::from_secs(60), Duration::ZERO);
        let [one, other] = ["a/one", "a/other"].map(|name| RepositoryName::parse(name).unwrap());
        let [digest, unknown] = [Digest::sha256(b"x"), Digest::sha256(b"y")];
        memory.links.insert((one.clone(), digest.clone()), ()).await;
        assert!(memory.links.contains_key(&In(&one, &digest)));
        assert!(!memory.links.contains_key(&In(&other, &digest)));
        assert!(!memory.links.contains_key(&In(&one, &unknown)));
    }
}
