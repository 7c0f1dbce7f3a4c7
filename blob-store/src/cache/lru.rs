//! Which blob was read longest ago.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use oci_types::Digest;

/// Blobs in the order in which they were read last. Holds no bytes.
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
    /// How many bytes the blobs have.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A blob was stored or read just now.
    pub(super) fn touch(&mut self, digest: &Digest, size: u64) {
        // Later than every other, also when the clock was set back.
        let floor = self.latest.map(|latest| latest + Duration::from_nanos(1));
        let now = floor.map_or(SystemTime::now(), |floor| floor.max(SystemTime::now()));
        self.insert(digest, size, now);
    }

    /// A blob was found that was read last at `read_at`. What is known of it already stands.
    pub(super) fn found(&mut self, digest: &Digest, size: u64, read_at: SystemTime) {
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

    /// The blob that was read longest ago.
    pub(super) fn oldest(&self) -> Option<Digest> {
        self.order.first().map(|(_, digest)| digest.clone())
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
    fn the_blob_that_was_read_longest_ago_goes_first() {
        let mut lru = Lru::default();
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::sha256(bytes));
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        lru.touch(&a, 1);
        lru.found(&b, 2, yesterday);
        lru.found(&a, 1, yesterday - Duration::from_secs(9));
        lru.touch(&c, 4);
        assert_eq!((lru.bytes(), lru.oldest()), (7, Some(b.clone())));
        lru.touch(&b, 2);
        assert_eq!((lru.bytes(), lru.oldest()), (7, Some(a.clone())));
        lru.remove(&a);
        lru.remove(&a);
        assert_eq!((lru.bytes(), lru.oldest()), (6, Some(c)));
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_order() {
        let mut lru = Lru::default();
        let [a, b] = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
        lru.found(&a, 1, SystemTime::now() + Duration::from_secs(3600));
        lru.touch(&b, 1);
        assert_eq!(lru.oldest(), Some(a));
    }
}
