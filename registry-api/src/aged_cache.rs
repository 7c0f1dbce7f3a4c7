//! A cache of rows of the database. An entry is current for a short time, and is kept longer for outages of the database.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    time::{Duration, Instant},
};

use moka::{Equivalent, future::Cache};

/// How long an entry is kept for outages of the database.
const OUTAGE_LIFETIME: Duration = Duration::from_hours(1);

/// A cache whose entries are current for at most `max_age`.
pub(crate) struct AgedCache<K, V> {
    entries: Cache<K, (Instant, V)>,
    max_age: Duration,
}

impl<K, V> AgedCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    RandomState: BuildHasher,
{
    pub(crate) fn new(max_entries: u64, max_age: Duration) -> Self {
        let lifetime = OUTAGE_LIFETIME.max(max_age);
        Self { entries: Cache::builder().max_capacity(max_entries).time_to_live(lifetime).build(), max_age }
    }

    /// The value, if it is current.
    pub(crate) async fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<V> {
        let (inserted_at, value) = self.entries.get(key).await?;
        (inserted_at.elapsed() < self.max_age).then_some(value)
    }

    /// The value, however old: for the time in which the database is unavailable.
    pub(crate) async fn get_outdated<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<V> {
        self.entries.get(key).await.map(|(_, value)| value)
    }

    pub(crate) async fn insert(&self, key: K, value: V) {
        self.entries.insert(key, (Instant::now(), value)).await;
    }

    pub(crate) async fn invalidate<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) {
        self.entries.invalidate(key).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_entry_that_is_not_current_is_found_for_outages_only() {
        let cache: AgedCache<String, u32> = AgedCache::new(10, Duration::ZERO);
        cache.insert("a".to_owned(), 1).await;
        assert_eq!(cache.get("a").await, None);
        assert_eq!(cache.get_outdated("a").await, Some(1));
        let cache: AgedCache<String, u32> = AgedCache::new(10, Duration::from_secs(60));
        cache.insert("a".to_owned(), 1).await;
        assert_eq!(cache.get("a").await, Some(1));
        cache.invalidate("a").await;
        assert_eq!(cache.get_outdated("a").await, None);
    }
}
