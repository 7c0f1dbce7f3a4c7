//! `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// Maximum wait that an upstream can impose.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// `Retry-After` in seconds or as a date, as time from `now`. `None` if it is missing or invalid.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (value, expected) in [
            ("7", Some(Duration::from_secs(7))),
            ("Sun, 09 Sep 2001 01:48:20 GMT", Some(Duration::from_secs(100))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("18446744073709551615", Some(MAX_WAIT)),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
