//! `n` and `last` of a listing, and the `Link` to its next page (distribution-spec: end-8b).

use actix_web::{HttpRequest, HttpResponseBuilder, http::header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{error::ApiError, listing::PageRequest};

/// The characters that are escaped in a query value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The first value of a query parameter, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The page that a request is for, with `n` clamped to `max`. An empty `last` is ignored.
///
/// # Errors
/// `n` is not a whole number; `parse_last` fails.
pub(super) fn requested<T>(
    request: &HttpRequest,
    max: u32,
    parse_last: impl FnOnce(&str) -> Result<T, ApiError>,
) -> Result<PageRequest<T>, ApiError> {
    let query = request.query_string();
    let n = parameter(query, "n").map(|text| size(&text, max)).transpose()?;
    let last = parameter(query, "last").filter(|text| !text.is_empty());
    let last = last.map(|text| parse_last(&text)).transpose()?;
    Ok(PageRequest { n, last })
}

fn size(text: &str, max: u32) -> Result<u32, ApiError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::Page("n is not a whole number"));
    }
    // A number that does not fit is beyond every maximum.
    Ok(text.parse().unwrap_or(u32::MAX).min(max))
}

/// Links to the page after `last`, where there is one, with the same path, these other parameters, and `?ns=`, behind `base`.
pub(super) fn link_next(
    request: &HttpRequest,
    response: &mut HttpResponseBuilder,
    base: &str,
    others: &[(&str, &str)],
    last: Option<&str>,
) {
    let Some(last) = last else { return };
    let ns = super::ns(request);
    let parameters =
        others.iter().copied().chain([("last", last)]).chain(ns.iter().map(|host| ("ns", &**host)));
    let query = parameters
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY_VALUE)))
        .collect::<Vec<_>>()
        .join("&");
    let target = format!("{base}{}?{query}", request.path());
    response.insert_header((header::LINK, format!("<{target}>; rel=\"next\"")));
}
