//! `If-Range` (RFC 9110, section 13.1.5).

use actix_web::http::header::{HeaderMap, IF_RANGE};

/// Whether `Range` applies, given `If-Range`: without that header, or when it strongly matches `etag`.
pub(super) fn if_range_matches(headers: &HeaderMap, etag: &str) -> bool {
    headers.get(IF_RANGE).is_none_or(|value| value.to_str().is_ok_and(|value| value.trim() == etag))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn only_a_strong_match_keeps_the_range() {
        for (value, applies) in
            [(None, true), (Some("\"a\""), true), (Some("W/\"a\""), false), (Some("\"b\""), false)]
        {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(IF_RANGE, HeaderValue::from_static(value));
            }
            assert_eq!(if_range_matches(&headers, "\"a\""), applies, "{value:?}");
        }
    }
}
