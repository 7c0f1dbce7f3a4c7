//! `n` and `last` of a listing, and the `Link` to its next page (distribution-spec: end-8b).

use actix_web::{HttpRequest, HttpResponseBuilder, http::header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::ApiError;

/// What may stand unescaped in a query value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The first value of a query parameter, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// `n`, clamped to `most`.
///
/// # Errors
/// It is not a whole number.
pub(super) fn size(request: &HttpRequest, most: u32) -> Result<Option<u32>, ApiError> {
    let Some(text) = parameter(request.query_string(), "n") else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(ApiError::Page("n is not a whole number"));
    }
    // A number too large to be read is beyond every limit.
    Ok(Some(text.parse().unwrap_or(u32::MAX).min(most)))
}

/// Points to the page after `last`, with the same path and `?ns=`.
pub(super) fn link_next(request: &HttpRequest, response: &mut HttpResponseBuilder, n: u32, last: &str) {
    let mut target = format!("{}?n={n}&last={}", request.path(), utf8_percent_encode(last, QUERY_VALUE));
    if let Some(host) = super::ns(request) {
        target.push_str(&format!("&ns={}", utf8_percent_encode(&host, QUERY_VALUE)));
    }
    response.insert_header((header::LINK, format!("<{target}>; rel=\"next\"")));
}
