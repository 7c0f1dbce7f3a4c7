//! What an upstream says of its quota, and when background work has to wait for it.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, header};
use parking_lot::Mutex;

/// No wait that an upstream names is taken for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a quota is believed when upstream does not name its window.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Background work that was held back looks again at least this often: a client's request may have brought news.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// The quota as the last answer told it (`ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in a window.
    pub limit: Option<u64>,
    /// Requests left.
    pub remaining: Option<u64>,
    /// The length of the window.
    pub window: Option<Duration>,
    /// When the quota is full again, seen from now; never longer than a day.
    pub reset_after: Duration,
}

/// The quota of one upstream as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    limit: Option<(RateLimit, Instant)>,
    retry_at: Option<Instant>,
}

impl Quota {
    /// Takes in what an answer of the upstream itself says; `retry_after`: that of a 429. False where it says nothing of a
    /// quota.
    pub(crate) fn note(&self, retry_after: Option<Duration>, headers: &HeaderMap, now: Instant) -> bool {
        let retry_at = retry_after.and_then(|wait| now.checked_add(wait));
        let limit = read_limit(headers);
        if retry_at.is_none() && limit.is_none() {
            return false;
        }
        let mut seen = self.0.lock();
        if let Some(limit) = limit {
            seen.limit = Some((limit, now));
        }
        seen.retry_at = seen.retry_at.max(retry_at);
        true
    }

    /// Takes in that a 429 asked another process to wait.
    pub(crate) fn wait(&self, wait: Duration, now: Instant) {
        let mut seen = self.0.lock();
        seen.retry_at = seen.retry_at.max(now.checked_add(wait.min(LONGEST_WAIT)));
    }

    /// Takes in the quota that another process was told at `seen_at`; it is full again `reset_after` from `now`.
    pub(crate) fn learn(
        &self,
        limit: Option<u64>,
        remaining: Option<u64>,
        reset_after: Duration,
        seen_at: Instant,
        now: Instant,
    ) {
        let reset_after =
            reset_after.min(LONGEST_WAIT).saturating_add(now.saturating_duration_since(seen_at));
        self.0.lock().limit = Some((RateLimit { limit, remaining, window: None, reset_after }, seen_at));
    }

    /// When the quota was told.
    pub(crate) fn seen_at(&self) -> Option<Instant> {
        Some(self.0.lock().limit?.1)
    }

    /// How long background work has to wait, if it has to: a `Retry-After` runs, or no more than `reserve` is left.
    pub(crate) fn hold_back(&self, reserve: u64, now: Instant) -> Option<Duration> {
        if let Some(wait) = self.retry_after(now) {
            return Some(wait);
        }
        let limit = self.limit(now)?;
        (reserve > 0 && limit.remaining? <= reserve).then(|| limit.reset_after.min(LOOK_AGAIN))
    }

    /// The quota, unless its window is over.
    pub(crate) fn limit(&self, now: Instant) -> Option<RateLimit> {
        let (limit, seen_at) = self.0.lock().limit?;
        let left = limit.reset_after.checked_sub(now.saturating_duration_since(seen_at))?;
        (!left.is_zero()).then_some(RateLimit { reset_after: left, ..limit })
    }

    /// What is left of the wait that the last 429 asked for.
    pub(crate) fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.0.lock().retry_at?.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

fn read_limit(headers: &HeaderMap) -> Option<RateLimit> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let (limit, limit_window) = text("ratelimit-limit").map(read_value).unwrap_or_default();
    let (remaining, remaining_window) = text("ratelimit-remaining").map(read_value).unwrap_or_default();
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    let window = limit_window.or(remaining_window);
    let reset = text("ratelimit-reset").and_then(|value| read_value(value).0).map(Duration::from_secs);
    let reset_after = reset.or(window).unwrap_or(DEFAULT_WINDOW).min(LONGEST_WAIT);
    Some(RateLimit { limit, remaining, window, reset_after })
}

/// `100;w=21600`: a number and, as a parameter, a window in seconds. Of a list the first item counts.
fn read_value(text: &str) -> (Option<u64>, Option<Duration>) {
    let mut parts = text.split(',').next().unwrap_or_default().split(';').map(str::trim);
    let number = parts.next().and_then(|number| number.parse().ok());
    let seconds = parts.find_map(|part| part.strip_prefix("w=")).and_then(|seconds| seconds.parse().ok());
    (number, seconds.map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn docker_hubs_headers_are_read() {
        let hub = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        let window = Duration::from_secs(21600);
        let expected =
            RateLimit { limit: Some(100), remaining: Some(76), window: Some(window), reset_after: window };
        assert_eq!(read_limit(&hub), Some(expected));
        assert_eq!(read_limit(&headers(&[("ratelimit-limit", "many")])), None);
        assert_eq!(read_limit(&HeaderMap::new()), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (value, expected) in [
            ("7", Some(Duration::from_secs(7))),
            ("Sun, 09 Sep 2001 01:48:20 GMT", Some(Duration::from_secs(100))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("18446744073709551615", Some(LONGEST_WAIT)),
        ] {
            assert_eq!(retry_after(&headers(&[("retry-after", value)]), now), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn background_work_waits_at_the_reserve_until_the_window_is_over() {
        let now = Instant::now();
        let quota = Quota::default();
        quota.note(None, &headers(&[("ratelimit-remaining", "20;w=60")]), now);
        assert_eq!(quota.hold_back(19, now), None);
        assert_eq!(quota.hold_back(20, now), Some(Duration::from_secs(60)));
        assert_eq!(quota.hold_back(0, now), None);
        assert_eq!(quota.hold_back(20, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn background_work_waits_while_a_retry_after_runs() {
        let now = Instant::now();
        let quota = Quota::default();
        assert!(!quota.note(None, &headers(&[("retry-after", "50")]), now), "of a 503");
        assert_eq!(quota.hold_back(0, now), None);
        assert!(quota.note(Some(Duration::from_secs(5)), &HeaderMap::new(), now));
        assert!(quota.note(Some(Duration::from_secs(2)), &HeaderMap::new(), now));
        assert_eq!(quota.hold_back(0, now), Some(Duration::from_secs(5)));
        assert_eq!(quota.hold_back(0, now + Duration::from_secs(5)), None);
    }
}
