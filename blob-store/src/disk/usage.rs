//! Size of the stored blobs, exact even while blobs are stored and deleted during the scan at
//! start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{DiskUsage, StoreError, layout::Shard};

/// A running sum over the stored blobs, which a scan adds shard by shard.
///
/// A change in a shard that is not scanned yet is not added: the scan will count it. During the
/// scan, a change and the scan of a shard exclude each other.
#[derive(Debug)]
pub(crate) struct UsageCounter {
    bytes: AtomicU64,
    /// The first shard that is not scanned; `None` after the scan.
    next: Mutex<Option<Shard>>,
    complete: AtomicBool,
}

/// Size of one blob before and after a change, in bytes; 0 if it is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeChange {
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl UsageCounter {
    pub(crate) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            next: Mutex::new(Shard::all().next()),
            complete: AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self) -> DiskUsage {
        let complete = self.complete.load(Ordering::Acquire);
        DiskUsage { bytes: self.bytes.load(Ordering::Relaxed), complete }
    }

    /// Makes a change to a blob of `shard` and adds its difference.
    pub(crate) fn change(
        &self,
        shard: Shard,
        apply: impl FnOnce() -> Result<SizeChange, StoreError>,
    ) -> Result<SizeChange, StoreError> {
        let next = (!self.complete.load(Ordering::Acquire)).then(|| self.next.lock());
        let change = apply()?;
        let is_counted = next.is_none_or(|next| next.is_none_or(|next| shard < next));
        if is_counted {
            self.bytes.fetch_add(change.after, Ordering::Relaxed);
            self.bytes.fetch_sub(change.before, Ordering::Relaxed);
        }
        Ok(change)
    }

    /// Adds the sum of `shard`. Shards must be added in ascending order.
    pub(crate) fn count(&self, shard: Shard, sum: impl FnOnce() -> u64) {
        let mut next = self.next.lock();
        self.bytes.fetch_add(sum(), Ordering::Relaxed);
        *next = Shard::all().find(|other| *other > shard);
        if next.is_none() {
            self.complete.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_types::Digest;

    use super::*;

    #[test]
    fn a_change_is_counted_once_before_and_after_the_scan_of_its_shard() {
        let counter = UsageCounter::new();
        let shard = Shard::of(&Digest::sha256(b"x"));
        let grow = |after| counter.change(shard, || Ok(SizeChange { before: 0, after })).unwrap();
        grow(7);
        assert_eq!(counter.get(), DiskUsage { bytes: 0, complete: false });
        for other in Shard::all() {
            counter.count(other, || if other == shard { 7 } else { 0 });
            if other == shard {
                grow(5);
            }
        }
        assert_eq!(counter.get(), DiskUsage { bytes: 12, complete: true });
        counter.change(shard, || Ok(SizeChange { before: 7, after: 0 })).unwrap();
        assert_eq!(counter.get(), DiskUsage { bytes: 5, complete: true });
        assert!(counter.change(shard, || Err(StoreError::Closed)).is_err());
        assert_eq!(counter.get().bytes, 5);
    }
}
