//! Which parts of another process's snapshot are newer than the state of this process.

use std::time::Duration;

use oci_types::Millis;

use super::UpstreamSnapshot;

/// The state of this process that a snapshot is compared with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LocalState {
    /// When a call last succeeded.
    pub(super) last_success: Option<Millis>,
    /// When the quota was observed.
    pub(super) quota_observed_at: Option<Millis>,
    /// Time for which a circuit stays open.
    pub(super) open_duration: Duration,
}

/// The parts of a snapshot to merge. All times are in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Updates {
    pub(super) circuit_open_until: Option<Millis>,
    pub(super) retry_at: Option<Millis>,
    pub(super) quota_reset_at: Option<Millis>,
}

impl Updates {
    /// An open circuit is merged unless a call succeeded here after it opened; a wait, until it ends; a quota, if it was
    /// observed later than the local one.
    pub(super) fn new(snapshot: &UpstreamSnapshot, local: LocalState, now: Millis) -> Self {
        let in_future = |at: &Millis| *at > now;
        let opened_at = |until: Millis| until.before(local.open_duration);
        Self {
            circuit_open_until: snapshot
                .circuit_open_until
                .filter(in_future)
                .filter(|until| local.last_success.is_none_or(|success| success < opened_at(*until))),
            retry_at: snapshot.retry_at.filter(in_future),
            quota_reset_at: snapshot
                .reset_at
                .filter(in_future)
                .filter(|_| local.quota_observed_at.is_none_or(|at| at < snapshot.observed_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_DURATION: Duration = Duration::from_secs(10);

    /// A moment, in milliseconds after an arbitrary one.
    fn at(millis: u64) -> Millis {
        let start = std::sync::LazyLock::force(&START);
        start.after(Duration::from_millis(millis))
    }

    static START: std::sync::LazyLock<Millis> = std::sync::LazyLock::new(Millis::now);

    fn now() -> Millis {
        at(100_000)
    }

    fn snapshot() -> UpstreamSnapshot {
        UpstreamSnapshot {
            observed_at: at(95_000),
            circuit_open_until: Some(at(105_000)),
            retry_at: Some(at(160_000)),
            limit: Some(100),
            remaining: Some(0),
            reset_at: Some(at(200_000)),
        }
    }

    fn updates(
        snapshot: UpstreamSnapshot,
        last_success: Option<u64>,
        quota_observed_at: Option<u64>,
    ) -> Updates {
        let local = LocalState {
            last_success: last_success.map(at),
            quota_observed_at: quota_observed_at.map(at),
            open_duration: OPEN_DURATION,
        };
        Updates::new(&snapshot, local, now())
    }

    #[test]
    fn a_process_without_state_merges_all_that_is_not_over() {
        let all = Updates {
            circuit_open_until: Some(at(105_000)),
            retry_at: Some(at(160_000)),
            quota_reset_at: Some(at(200_000)),
        };
        assert_eq!(updates(snapshot(), None, None), all);
        let over = UpstreamSnapshot {
            circuit_open_until: Some(now()),
            retry_at: Some(now()),
            reset_at: Some(now()),
            ..snapshot()
        };
        assert_eq!(updates(over, None, None), Updates::default());
    }

    #[test]
    fn an_open_circuit_is_not_merged_after_a_later_success() {
        for (success, merged) in [(94_999, true), (95_000, false), (99_999, false)] {
            let circuit = updates(snapshot(), Some(success), None).circuit_open_until;
            assert_eq!(circuit.is_some(), merged, "{success}");
        }
    }

    #[test]
    fn an_older_quota_does_not_replace_a_newer_one() {
        for (observed_at, merged) in [(94_999, true), (95_000, false), (99_999, false)] {
            let quota = updates(snapshot(), None, Some(observed_at)).quota_reset_at;
            assert_eq!(quota.is_some(), merged, "{observed_at}");
        }
        assert_eq!(updates(snapshot(), Some(99_999), Some(99_999)).retry_at, Some(at(160_000)));
    }
}
