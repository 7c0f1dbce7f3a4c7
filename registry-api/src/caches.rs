//! What this process caches of the database and of upstreams, each entry for a bounded time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Equivalent, future::Cache};
use oci_types::{Digest, Reference, Tag};
use shared_models::db::{
    links::LinkedBlob, manifests::StoredManifest, record::TagCheck, repositories::RepositoryKey, tags::TagRow,
};

use crate::{
    aged_cache::AgedCache, answer::ManifestHeaders, config::ApiSettings, error::Failure,
    known_referrers::KnownReferrers, known_tags::KnownTags,
};

/// A key of the negative cache: content that the upstream of a repository does not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum NegativeKey {
    Manifest(RepositoryKey, Reference),
    Blob(RepositoryKey, Digest),
    TagList(RepositoryKey),
    Referrers(RepositoryKey, Digest),
}

/// A borrowed key of what belongs to a repository. Its hash equals that of the owned tuple.
#[derive(Hash)]
pub(crate) struct KeyRef<'a, T>(pub(crate) &'a RepositoryKey, pub(crate) &'a T);

impl<T: Eq> Equivalent<(RepositoryKey, T)> for KeyRef<'_, T> {
    fn equivalent(&self, (repository, other): &(RepositoryKey, T)) -> bool {
        self.1 == other && self.0 == repository
    }
}

/// The caches of one process. What belongs to a repository and comes from the database is at most `cache_max_age` old.
pub(crate) struct Caches {
    /// By digest, hence never out of date. Whether a repository may serve one is in `manifest_links`.
    pub(crate) manifests: Cache<Digest, Arc<StoredManifest>>,
    pub(crate) tags: AgedCache<(RepositoryKey, Tag), TagRow>,
    /// The manifests that a repository may serve. Absence means nothing.
    pub(crate) manifest_links: AgedCache<(RepositoryKey, Digest), ()>,
    /// The blobs that a repository links. Absence means nothing.
    pub(crate) blobs: AgedCache<(RepositoryKey, Digest), LinkedBlob>,
    /// The content that an upstream has refused: it does not exist, access is denied, or it is not supported.
    pub(crate) refused: Cache<NegativeKey, Failure>,
    /// What the upstream answered to a `HEAD` of a tag whose manifest is not present, and when.
    pub(crate) named: Cache<(RepositoryKey, Tag), (Instant, ManifestHeaders)>,
    /// The check that named a manifest which is not present. Its tag is recorded with the manifest.
    pub(crate) namings: Cache<(RepositoryKey, Digest), TagCheck>,
    /// The tags that the upstream of a repository lists.
    pub(crate) tag_lists: Cache<RepositoryKey, Arc<KnownTags>>,
    /// The referrers of manifests, as the upstream of a repository lists them.
    pub(crate) referrers: Cache<(RepositoryKey, Digest), Arc<KnownReferrers>>,
}

/// The maximum number of entries of each cache that is not bounded in bytes.
const MAX_ENTRIES: u64 = 100_000;

/// How long a manifest that a `HEAD` has named is known, until a client requests it.
const MAX_NAMING_AGE: Duration = Duration::from_hours(1);

/// The maximum lifetime of a list of tags or referrers. It is served while the upstream is unavailable.
const MAX_LIST_AGE: Duration = Duration::from_hours(24);

impl Caches {
    /// Caches of the sizes and lifetimes in `settings`.
    pub(crate) fn new(settings: &ApiSettings) -> Self {
        let max_age = settings.cache_max_age;
        let size = |_: &Digest, manifest: &Arc<StoredManifest>| {
            u32::try_from(manifest.body.len()).unwrap_or(u32::MAX)
        };
        Self {
            manifests: Cache::builder().weigher(size).max_capacity(settings.manifest_cache_bytes).build(),
            tags: AgedCache::new(MAX_ENTRIES, max_age),
            manifest_links: AgedCache::new(MAX_ENTRIES, max_age),
            blobs: AgedCache::new(MAX_ENTRIES, max_age),
            named: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(MAX_NAMING_AGE).build(),
            namings: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(MAX_NAMING_AGE).build(),
            refused: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(settings.negative_ttl).build(),
            tag_lists: Cache::builder()
                .weigher(|key: &RepositoryKey, known: &Arc<KnownTags>| {
                    let bytes = key.as_str().len() + size_of::<KnownTags>() + known.bytes();
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .max_capacity(settings.tag_list_cache_bytes)
                .time_to_live(MAX_LIST_AGE)
                .build(),
            referrers: Cache::builder()
                .weigher(|(key, _): &(RepositoryKey, Digest), known: &Arc<KnownReferrers>| {
                    let bytes = key.as_str().len() + size_of::<KnownReferrers>() + known.bytes();
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .max_capacity(settings.referrers_cache_bytes)
                .time_to_live(MAX_LIST_AGE)
                .build(),
        }
    }
}

impl Caches {
    /// Caches what the upstream answered to a `HEAD` of a tag whose manifest is not present.
    pub(crate) async fn note_naming(&self, key: &RepositoryKey, check: &TagCheck, headers: &ManifestHeaders) {
        let named = (Instant::now(), headers.clone());
        self.named.insert((key.clone(), check.tag.clone()), named).await;
        self.namings.insert((key.clone(), headers.digest.clone()), check.clone()).await;
    }

    /// Caches a failure that holds for a while.
    pub(crate) async fn note_refusal(&self, key: NegativeKey, failure: &Failure) {
        if failure.is_refusal() {
            self.refused.insert(key, failure.clone()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_types::RepositoryName;
    use shared_models::db::repositories::Repository;
    use upstream_client::TagPage;

    use super::*;

    #[tokio::test]
    async fn entries_are_found_by_borrowed_keys() {
        let caches = Caches::new(&ApiSettings::default());
        let [one, other] = ["a/one", "a/other"]
            .map(|name| Repository::Hosted { name: RepositoryName::parse(name).unwrap() }.key());
        let [digest, unknown] = [Digest::sha256(b"x"), Digest::sha256(b"y")];
        caches.manifest_links.insert((one.clone(), digest.clone()), ()).await;
        assert!(caches.manifest_links.get(&KeyRef(&one, &digest)).await.is_some());
        assert!(caches.manifest_links.get(&KeyRef(&other, &digest)).await.is_none());
        assert!(caches.manifest_links.get(&KeyRef(&one, &unknown)).await.is_none());
    }

    #[tokio::test]
    async fn tag_lists_are_bounded_in_bytes_whatever_their_number() {
        let caches = Caches::new(&ApiSettings { tag_list_cache_bytes: 100_000, ..ApiSettings::default() });
        let tag = |number: usize| Tag::parse(&format!("tag-{number:020}")).unwrap();
        for number in 0..50 {
            let name = RepositoryName::parse(&format!("a{number}")).unwrap();
            let page = TagPage { tags: (0..100).map(tag).collect(), next: None };
            let known = KnownTags::new(page, Instant::now());
            caches.tag_lists.insert(Repository::Hosted { name }.key(), Arc::new(known)).await;
        }
        caches.tag_lists.run_pending_tasks().await;
        let (count, bytes) = (caches.tag_lists.entry_count(), caches.tag_lists.weighted_size());
        assert!((10..25).contains(&count) && bytes <= 100_000, "{count} lists of {bytes} bytes");
    }
}
