//! How many bytes the stored blobs have, kept exact while blobs come and go during the first count.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{DiskUsage, StoreError, layout::Shard};

/// A running sum over the stored blobs, begun by counting shard after shard.
///
/// A change to a shard that is still to be counted is left to the count, which will see it; one to a shard
/// that was counted is added. While the count runs, changes and the counting of one shard take turns.
#[derive(Debug)]
pub(crate) struct UsageCounter {
    bytes: AtomicU64,
    /// The first shard that is not counted yet; `None` when all are.
    next: Mutex<Option<Shard>>,
    complete: AtomicBool,
}

/// What a change to the store did to the length of one blob, in bytes; 0 for a blob that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
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

    /// Makes a change to a blob of `shard`, and counts it.
    pub(crate) fn change(
        &self,
        shard: Shard,
        make: impl FnOnce() -> Result<Change, StoreError>,
    ) -> Result<Change, StoreError> {
        let turn = if self.complete.load(Ordering::Acquire) {
            None
        } else {
            Some(self.next.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let change = make()?;
        let is_counted = turn.is_none_or(|next| next.is_none_or(|next| shard < next));
        if is_counted {
            self.bytes.fetch_add(change.after, Ordering::Relaxed);
            self.bytes.fetch_sub(change.before, Ordering::Relaxed);
        }
        Ok(change)
    }

    /// Adds what `sum` finds in `shard`. Shards are to be counted in their order.
    pub(crate) fn count(&self, shard: Shard, sum: impl FnOnce() -> u64) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_change_is_counted_once_whether_its_shard_was_counted_or_not() {
        let counter = UsageCounter::new();
        let shard = Shard::of(&Digest::sha256(b"x"));
        let grow = |after| counter.change(shard, || Ok(Change { before: 0, after })).unwrap();
        grow(7);
        assert_eq!(counter.get(), DiskUsage { bytes: 0, complete: false });
        for other in Shard::all() {
            counter.count(other, || if other == shard { 7 } else { 0 });
            if other == shard {
                grow(5);
            }
        }
        assert_eq!(counter.get(), DiskUsage { bytes: 12, complete: true });
        counter.change(shard, || Ok(Change { before: 7, after: 0 })).unwrap();
        assert_eq!(counter.get(), DiskUsage { bytes: 5, complete: true });
        assert!(counter.change(shard, || Err(StoreError::Closed)).is_err());
        assert_eq!(counter.get().bytes, 5);
    }
}
