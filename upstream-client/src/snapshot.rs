//! The state of an upstream that processes share, so that one process's 429 or open circuit spares the others theirs.

mod updates;

use std::time::Duration;

use oci_types::Millis;
use parking_lot::Mutex;

use self::updates::{LocalState, Updates};
use crate::{Upstream, clock::Now};

/// The state of an upstream as one process knows it, including the snapshots that it merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSnapshot {
    /// When this process itself last observed a change. Later in each snapshot that contains a newer change.
    pub observed_at: Millis,
    /// End of the time for which the circuit is open.
    pub circuit_open_until: Option<Millis>,
    /// End of the wait after a 429.
    pub retry_at: Option<Millis>,
    /// Quota in requests.
    pub limit: Option<u64>,
    /// Remaining requests of the quota.
    pub remaining: Option<u64>,
    /// When the quota is full again.
    pub reset_at: Option<Millis>,
}

/// When this process last observed a change of its upstream's state. Strictly increasing.
#[derive(Debug, Default)]
pub(crate) struct LastChange(Mutex<Option<Millis>>);

impl LastChange {
    /// Records a change at this moment.
    pub(crate) fn set(&self) {
        self.set_at(Now::read().wall);
    }

    fn set_at(&self, now: Millis) {
        let mut last = self.0.lock();
        *last = Some(last.map_or(now, |last| now.max(last.after(Duration::from_millis(1)))));
    }

    fn get(&self) -> Option<Millis> {
        *self.0.lock()
    }
}

impl Upstream {
    /// The state to share with other processes; `None` until this process has observed a change.
    pub fn snapshot(&self) -> Option<UpstreamSnapshot> {
        // Read first: a concurrent change gives the next snapshot a later time.
        let observed_at = self.transport.last_change.get()?;
        let now = Now::read();
        let status = self.status_at(now.monotonic);
        let in_future = |wait| now.wall.after(wait);
        Some(UpstreamSnapshot {
            observed_at,
            circuit_open_until: status.circuit_open_for.map(in_future),
            retry_at: status.retry_after.map(in_future),
            limit: status.rate_limit.and_then(|quota| quota.limit),
            remaining: status.rate_limit.and_then(|quota| quota.remaining),
            reset_at: status.rate_limit.map(|quota| in_future(quota.reset_after)),
        })
    }

    /// Merges the snapshot of another process, as far as it is newer than the state of this one.
    pub fn merge(&self, snapshot: &UpstreamSnapshot) {
        let now = Now::read();
        let (breaker, rate_limit) = (&self.transport.breaker, &self.transport.rate_limit);
        let local = LocalState {
            last_success: breaker.last_success().map(|at| now.wall_of(at)),
            quota_observed_at: rate_limit.observed_at().map(|at| now.wall_of(at)),
            open_duration: self.transport.config.breaker_open_for,
        };
        let updates = Updates::new(snapshot, local, now.wall);
        if let Some(until) = updates.circuit_open_until {
            breaker.open(now.until(until), now.monotonic);
        }
        if let Some(retry_at) = updates.retry_at {
            rate_limit.merge_wait(now.until(retry_at), now.monotonic);
        }
        if let Some(reset_at) = updates.quota_reset_at {
            let quota = (snapshot.limit, snapshot.remaining);
            let observed_at = now.monotonic_of(snapshot.observed_at);
            rate_limit.merge_quota(quota, now.until(reset_at), observed_at, now.monotonic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_later_than_the_one_before() {
        let now = Millis::now();
        let second = now.after(Duration::from_millis(1));
        let (third, later) = (now.after(Duration::from_millis(2)), now.after(Duration::from_secs(1)));
        let last = LastChange::default();
        assert_eq!(last.get(), None);
        for (set, expected) in [(now, now), (now, second), (now, third), (later, later)] {
            last.set_at(set);
            assert_eq!(last.get(), Some(expected));
        }
    }
}
