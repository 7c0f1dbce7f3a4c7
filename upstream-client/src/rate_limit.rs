//! The rate limit of an upstream, and the waits of background requests.

use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::Mutex;

use crate::retry_after::MAX_WAIT;

/// Window of a quota when the upstream does not state it.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Maximum wait of a background request for a full quota: a client's response may update it earlier.
const MAX_BACKGROUND_WAIT: Duration = Duration::from_secs(10 * 60);

/// The quota in the last response (`ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests permitted in a window.
    pub limit: Option<u64>,
    /// Remaining requests.
    pub remaining: Option<u64>,
    /// Length of the window.
    pub window: Option<Duration>,
    /// Time until the quota is full again; at most a day.
    pub reset_after: Duration,
}

/// What is known of the rate limit of one upstream.
#[derive(Debug, Default)]
pub(crate) struct RateLimitState(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The quota, and when it was observed.
    quota: Option<(RateLimit, Instant)>,
    /// End of the wait after a 429.
    retry_at: Option<Instant>,
}

impl RateLimitState {
    /// Records a response of the upstream itself; `retry_after` is that of a 429. Returns false if the response states
    /// nothing about a rate limit.
    pub(crate) fn observe(&self, retry_after: Option<Duration>, headers: &HeaderMap, now: Instant) -> bool {
        let retry_at = retry_after.and_then(|wait| now.checked_add(wait));
        let quota = quota(headers);
        if retry_at.is_none() && quota.is_none() {
            return false;
        }
        let mut known = self.0.lock();
        if let Some(quota) = quota {
            known.quota = Some((quota, now));
        }
        known.retry_at = known.retry_at.max(retry_at);
        true
    }

    /// Records the remaining wait after a 429 to another process.
    pub(crate) fn merge_wait(&self, wait: Duration, now: Instant) {
        let mut known = self.0.lock();
        known.retry_at = known.retry_at.max(now.checked_add(wait.min(MAX_WAIT)));
    }

    /// Records the quota that another process observed at `observed_at`, and that is full again `reset_after` from
    /// `now`.
    pub(crate) fn merge_quota(
        &self,
        (limit, remaining): (Option<u64>, Option<u64>),
        reset_after: Duration,
        observed_at: Instant,
        now: Instant,
    ) {
        let reset_after =
            reset_after.min(MAX_WAIT).saturating_add(now.saturating_duration_since(observed_at));
        let quota = RateLimit { limit, remaining, window: None, reset_after };
        self.0.lock().quota = Some((quota, observed_at));
    }

    /// When the quota was observed.
    pub(crate) fn observed_at(&self) -> Option<Instant> {
        Some(self.0.lock().quota?.1)
    }

    /// Time that a background request has to wait: after a 429, or while at most `reserve` requests remain.
    pub(crate) fn background_wait(&self, reserve: u64, now: Instant) -> Option<Duration> {
        if let Some(wait) = self.retry_after(now) {
            return Some(wait);
        }
        let quota = self.quota(now)?;
        (reserve > 0 && quota.remaining? <= reserve).then(|| quota.reset_after.min(MAX_BACKGROUND_WAIT))
    }

    /// The quota, until the end of its window.
    pub(crate) fn quota(&self, now: Instant) -> Option<RateLimit> {
        let (quota, observed_at) = self.0.lock().quota?;
        let reset_after = quota.reset_after.checked_sub(now.saturating_duration_since(observed_at))?;
        (!reset_after.is_zero()).then_some(RateLimit { reset_after, ..quota })
    }

    /// Time until the end of the wait after a 429.
    pub(crate) fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.0.lock().retry_at?.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

fn quota(headers: &HeaderMap) -> Option<RateLimit> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let (limit, limit_window) = text("ratelimit-limit").map(number_and_window).unwrap_or_default();
    let (remaining, remaining_window) =
        text("ratelimit-remaining").map(number_and_window).unwrap_or_default();
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    let window = limit_window.or(remaining_window);
    let reset = text("ratelimit-reset").and_then(|value| number_and_window(value).0);
    let reset_after = reset.map(Duration::from_secs).or(window).unwrap_or(DEFAULT_WINDOW).min(MAX_WAIT);
    Some(RateLimit { limit, remaining, window, reset_after })
}

/// Parses `100;w=21600`: a number, and the window in seconds as a parameter. Only the first item of a list counts.
fn number_and_window(text: &str) -> (Option<u64>, Option<Duration>) {
    let mut parts = text.split(',').next().unwrap_or_default().split(';').map(str::trim);
    let number = parts.next().and_then(|number| number.parse().ok());
    let seconds = parts.find_map(|part| part.strip_prefix("w=")).and_then(|seconds| seconds.parse().ok());
    (number, seconds.map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_headers_of_docker_hub_are_parsed() {
        let hub = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        let window = Duration::from_secs(21600);
        let expected =
            RateLimit { limit: Some(100), remaining: Some(76), window: Some(window), reset_after: window };
        assert_eq!(quota(&hub), Some(expected));
        assert_eq!(quota(&headers(&[("ratelimit-limit", "many")])), None);
        assert_eq!(quota(&HeaderMap::new()), None);
    }

    #[test]
    fn background_requests_wait_at_the_reserve_until_the_end_of_the_window() {
        let now = Instant::now();
        let state = RateLimitState::default();
        state.observe(None, &headers(&[("ratelimit-remaining", "20;w=60")]), now);
        assert_eq!(state.background_wait(19, now), None);
        assert_eq!(state.background_wait(20, now), Some(Duration::from_secs(60)));
        assert_eq!(state.background_wait(0, now), None);
        assert_eq!(state.background_wait(20, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn background_requests_wait_after_a_429() {
        let now = Instant::now();
        let state = RateLimitState::default();
        assert!(!state.observe(None, &headers(&[("retry-after", "50")]), now), "not a 429");
        assert_eq!(state.background_wait(0, now), None);
        assert!(state.observe(Some(Duration::from_secs(5)), &HeaderMap::new(), now));
        assert!(state.observe(Some(Duration::from_secs(2)), &HeaderMap::new(), now));
        assert_eq!(state.background_wait(0, now), Some(Duration::from_secs(5)));
        assert_eq!(state.background_wait(0, now + Duration::from_secs(5)), None);
    }

    #[test]
    fn the_quota_of_another_process_ends_with_its_window() {
        let now = Instant::now() + Duration::from_secs(60);
        let observed_at = now - Duration::from_secs(30);
        let state = RateLimitState::default();
        state.merge_quota((Some(100), Some(5)), Duration::from_secs(10), observed_at, now);
        assert_eq!(state.observed_at(), Some(observed_at));
        assert_eq!(state.quota(now).map(|quota| quota.reset_after), Some(Duration::from_secs(10)));
        assert_eq!(state.quota(now + Duration::from_secs(10)), None);
    }
}
