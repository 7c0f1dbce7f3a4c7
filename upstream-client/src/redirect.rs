//! The rules of a redirect from one URL to the next.

use http::{HeaderMap, header};
use url::Url;

/// Maximum redirects of one request: as many as clients written in Go follow.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// The target of a redirect by `from`.
///
/// # Errors
/// The reason: a missing or invalid `Location`, a downgrade from https to http, or another scheme.
pub(crate) fn next(from: &Url, headers: &HeaderMap) -> Result<Url, &'static str> {
    // Some servers do not escape characters outside ASCII.
    let location = headers.get(header::LOCATION).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let target = location.and_then(|location| from.join(location).ok());
    let mut target = target.ok_or("redirect without a valid Location")?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err("redirect from https to http"),
        _ => return Err("redirect to a scheme other than https"),
    }
    // The HTTP client would send credentials in the URL as `Authorization`.
    if target.set_username("").is_err() || target.set_password(None).is_err() {
        return Err("redirect without a host");
    }
    target.set_fragment(None);
    Ok(target)
}

/// Whether scheme, host and port of two URLs are equal, so that `Authorization` for one may be sent to the other.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn target(from: &str, location: &str) -> Option<String> {
        let location = HeaderValue::from_bytes(location.as_bytes()).unwrap();
        let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
        next(&Url::parse(from).unwrap(), &headers).ok().map(String::from)
    }

    #[test]
    fn a_location_is_absolute_or_relative() {
        assert_eq!(target("https://a/v2/x", "https://b/y?sig=1").unwrap(), "https://b/y?sig=1");
        assert_eq!(target("https://a/v2/x", "/y").unwrap(), "https://a/y");
        assert_eq!(target("https://a/v2/x", "//b/y").unwrap(), "https://b/y");
        assert_eq!(target("http://a/v2/x", "https://b/y").unwrap(), "https://b/y");
        assert_eq!(target("http://a/v2/x", "http://b/y").unwrap(), "http://b/y");
        assert_eq!(target("https://a/v2/x", "/\u{e4}").unwrap(), "https://a/%C3%A4");
    }

    #[test]
    fn a_downgrade_and_another_scheme_are_refused() {
        for location in ["http://a/v2/x", "ftp://a/", "file:///etc/passwd", "data:text/plain,x", "http://"] {
            assert_eq!(target("https://a/v2/x", location), None, "{location}");
        }
        assert!(next(&Url::parse("https://a/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn credentials_in_a_location_are_removed() {
        assert_eq!(target("https://a/", "https://user:secret@b/y#part").unwrap(), "https://b/y");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same =
            |one: &str, other: &str| same_origin(&Url::parse(one).unwrap(), &Url::parse(other).unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        for other in ["http://a/x", "https://a:444/x", "https://b/x", "https://sub.a/x"] {
            assert!(!same("https://a/x", other), "{other}");
        }
    }
}
