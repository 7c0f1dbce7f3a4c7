//! What processes tell each other of an upstream, so that one that was turned away spares it the others.

use std::time::{Duration, Instant};

use oci_types::Millis;
use parking_lot::Mutex;

use crate::Upstream;

/// An upstream as one process sees it, with what it was told by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// When upstream itself last told this process something. Each sighting of a process is later than its one before.
    pub observed_at: Millis,
    /// Until when it isn't asked, while the circuit is open.
    pub circuit_open_until: Option<Millis>,
    /// Until when a 429 asks to be left alone.
    pub retry_at: Option<Millis>,
    /// Its quota, in requests.
    pub limit: Option<u64>,
    /// What is left of the quota.
    pub remaining: Option<u64>,
    /// When the quota is full again.
    pub reset_at: Option<Millis>,
}

/// What a sighting is held against.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When upstream last answered here as it should.
    last_success: Option<Millis>,
    /// When the quota was last told.
    quota_seen_at: Option<Millis>,
    /// How long a circuit stays open.
    open_for: Duration,
}

/// What of a sighting is news here. None of its times is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct News {
    circuit_open_until: Option<Millis>,
    retry_at: Option<Millis>,
    quota: Option<Millis>,
}

impl News {
    /// An open circuit counts unless upstream has answered here since; a wait counts while it runs; a quota counts if
    /// it was told later than the one that is known here.
    fn of(sighting: &Sighting, known: Known, now: Millis) -> Self {
        let ahead = |at: &Millis| *at > now;
        let opened_at = |until: Millis| until.before(known.open_for);
        Self {
            circuit_open_until: sighting
                .circuit_open_until
                .filter(ahead)
                .filter(|until| known.last_success.is_none_or(|success| success < opened_at(*until))),
            retry_at: sighting.retry_at.filter(ahead),
            quota: sighting
                .reset_at
                .filter(ahead)
                .filter(|_| known.quota_seen_at.is_none_or(|seen| seen < sighting.observed_at)),
        }
    }
}

/// When upstream itself last told this process something.
#[derive(Debug, Default)]
pub(crate) struct LastNews(Mutex<Option<Millis>>);

impl LastNews {
    /// Notes that it did so now, and later than ever before.
    pub(crate) fn note(&self) {
        let mut last = self.0.lock();
        let later = last.map_or(Millis(0), |last| last.after(Duration::from_millis(1)));
        *last = Some(Millis::now().max(later));
    }

    fn at(&self) -> Option<Millis> {
        *self.0.lock()
    }
}

impl Upstream {
    /// What other processes should know of this upstream; `None` as long as it has told this process nothing.
    pub fn sighting(&self) -> Option<Sighting> {
        // Read first: news that comes meanwhile makes the next sighting a later one.
        let observed_at = self.transport.news.at()?;
        let status = self.status();
        let now = Millis::now();
        Some(Sighting {
            observed_at,
            circuit_open_until: status.circuit_open_for.map(|left| now.after(left)),
            retry_at: status.retry_after.map(|left| now.after(left)),
            limit: status.rate_limit.and_then(|quota| quota.limit),
            remaining: status.rate_limit.and_then(|quota| quota.remaining),
            reset_at: status.rate_limit.map(|quota| now.after(quota.reset_after)),
        })
    }

    /// Takes in what another process sees of this upstream, as far as it is news.
    pub fn take_in(&self, sighting: &Sighting) {
        let (now, instant) = (Millis::now(), Instant::now());
        let (breaker, quota) = (&self.transport.breaker, &self.transport.quota);
        let wall_clock = |at: Instant| now.before(instant.saturating_duration_since(at));
        let known = Known {
            last_success: breaker.last_success().map(wall_clock),
            quota_seen_at: quota.seen_at().map(wall_clock),
            open_for: self.transport.config.breaker_open_for,
        };
        let news = News::of(sighting, known, now);
        if let Some(until) = news.circuit_open_until {
            breaker.open(now.age(until), instant);
        }
        if let Some(retry_at) = news.retry_at {
            quota.wait(now.age(retry_at), instant);
        }
        if let Some(reset_at) = news.quota {
            let seen_at = instant.checked_sub(sighting.observed_at.age(now)).unwrap_or(instant);
            quota.learn(sighting.limit, sighting.remaining, now.age(reset_at), seen_at, instant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(100_000);
    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn sighting() -> Sighting {
        Sighting {
            observed_at: Millis(95_000),
            circuit_open_until: Some(Millis(105_000)),
            retry_at: Some(Millis(160_000)),
            limit: Some(100),
            remaining: Some(0),
            reset_at: Some(Millis(200_000)),
        }
    }

    fn news(sighting: Sighting, last_success: Option<i64>, quota_seen_at: Option<i64>) -> News {
        let known = Known {
            last_success: last_success.map(Millis),
            quota_seen_at: quota_seen_at.map(Millis),
            open_for: OPEN_FOR,
        };
        News::of(&sighting, known, NOW)
    }

    #[test]
    fn to_a_process_that_knows_nothing_all_is_news_that_is_not_over() {
        let all = News {
            circuit_open_until: Some(Millis(105_000)),
            retry_at: Some(Millis(160_000)),
            quota: Some(Millis(200_000)),
        };
        assert_eq!(news(sighting(), None, None), all);
        let over = Sighting {
            circuit_open_until: Some(NOW),
            retry_at: Some(NOW),
            reset_at: Some(NOW),
            ..sighting()
        };
        assert_eq!(news(over, None, None), News::default());
    }

    #[test]
    fn an_open_circuit_is_no_news_when_upstream_has_answered_here_since() {
        for (success, taken) in [(94_999, true), (95_000, false), (99_999, false)] {
            let circuit = news(sighting(), Some(success), None).circuit_open_until;
            assert_eq!(circuit.is_some(), taken, "{success}");
        }
    }

    #[test]
    fn an_older_quota_never_replaces_a_newer_one() {
        for (seen, taken) in [(94_999, true), (95_000, false), (99_999, false)] {
            assert_eq!(news(sighting(), None, Some(seen)).quota.is_some(), taken, "{seen}");
        }
        assert_eq!(news(sighting(), Some(99_999), Some(99_999)).retry_at, Some(Millis(160_000)));
    }

    #[test]
    fn each_news_is_later_than_the_one_before() {
        let last = LastNews::default();
        assert_eq!(last.at(), None);
        last.note();
        for _ in 0..100 {
            let before = last.at();
            last.note();
            assert!(last.at() > before);
        }
    }
}
