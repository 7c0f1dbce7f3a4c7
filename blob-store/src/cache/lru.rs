//! Order of the cached blobs by their last read.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use oci_types::Digest;

/// Digests and sizes in the order of their last read.
#[derive(Debug, Default)]
pub(super) struct Lru {
    blobs: HashMap<Digest, Entry>,
    order: BTreeSet<(SystemTime, Digest)>,
    bytes: u64,
    latest: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    read_at: SystemTime,
}

impl Lru {
    /// Records that a blob is stored or read now.
    pub(super) fn touch(&mut self, digest: &Digest, size: u64) {
        // Later than every other read, even after the clock was set back.
        let floor = self.latest.map(|latest| latest + Duration::from_nanos(1));
        let now = floor.map_or(SystemTime::now(), |floor| floor.max(SystemTime::now()));
        self.insert(digest, size, now);
    }

    /// Adds a blob that was last read at `read_at`, unless it is present.
    pub(super) fn insert_missing(&mut self, digest: &Digest, size: u64, read_at: SystemTime) {
        if !self.blobs.contains_key(digest) {
            self.insert(digest, size, read_at);
        }
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.blobs.remove(digest) {
            self.order.remove(&(entry.read_at, digest.clone()));
            self.bytes -= entry.size;
        }
    }

    /// The least recently read blob, if the blobs have more than `bytes` in total.
    pub(super) fn oldest_above(&self, bytes: u64) -> Option<Digest> {
        let (_, oldest) = self.order.first().filter(|_| self.bytes > bytes)?;
        Some(oldest.clone())
    }

    fn insert(&mut self, digest: &Digest, size: u64, read_at: SystemTime) {
        self.remove(digest);
        self.blobs.insert(digest.clone(), Entry { size, read_at });
        self.order.insert((read_at, digest.clone()));
        self.bytes += size;
        self.latest = self.latest.max(Some(read_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_read_blob_is_evicted_first() {
        let mut lru = Lru::default();
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::sha256(bytes));
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        lru.touch(&a, 1);
        lru.insert_missing(&b, 2, yesterday);
        lru.insert_missing(&a, 1, yesterday - Duration::from_secs(9));
        lru.touch(&c, 4);
        assert_eq!((lru.bytes, lru.oldest_above(0)), (7, Some(b.clone())));
        lru.touch(&b, 2);
        assert_eq!((lru.bytes, lru.oldest_above(0)), (7, Some(a.clone())));
        lru.remove(&a);
        lru.remove(&a);
        assert_eq!((lru.bytes, lru.oldest_above(0)), (6, Some(c)));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_change_the_order() {
        let mut lru = Lru::default();
        let [a, b] = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
        lru.insert_missing(&a, 1, SystemTime::now() + Duration::from_secs(3600));
        lru.touch(&b, 1);
        assert_eq!(lru.oldest_above(1), Some(a));
        assert_eq!(lru.oldest_above(2), None);
    }
}
