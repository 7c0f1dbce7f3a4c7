//! The rules of a hop from one URL to the next.

use http::{HeaderMap, header};
use url::Url;

/// How many redirects of one request are followed.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// Where an answer of `from` sends the client.
///
/// # Errors
/// No or an unreadable `Location`; a step from https to http; a scheme that is neither.
pub(crate) fn next(from: &Url, headers: &HeaderMap) -> Result<Url, &'static str> {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    let mut target = target.ok_or("redirect without a valid Location")?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err("redirect from https to http"),
        _ => return Err("redirect to a scheme other than https"),
    }
    // A login inside the URL would be sent as Authorization by the HTTP client.
    if target.set_username("").is_err() || target.set_password(None).is_err() {
        return Err("redirect without a host");
    }
    target.set_fragment(None);
    Ok(target)
}

/// Whether `Authorization` may go along from one URL to the other: scheme, host and port are all the same.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: &str, location: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
        next(&Url::parse(from).unwrap(), &headers).ok().map(String::from)
    }

    #[test]
    fn a_location_is_absolute_or_relative() {
        assert_eq!(step("https://a/v2/x", "https://b/y?sig=1").unwrap(), "https://b/y?sig=1");
        assert_eq!(step("https://a/v2/x", "/y").unwrap(), "https://a/y");
        assert_eq!(step("https://a/v2/x", "//b/y").unwrap(), "https://b/y");
        assert_eq!(step("http://a/v2/x", "https://b/y").unwrap(), "https://b/y");
        assert_eq!(step("http://a/v2/x", "http://b/y").unwrap(), "http://b/y");
    }

    #[test]
    fn a_step_down_or_out_of_http_is_refused() {
        for location in ["http://a/v2/x", "ftp://a/", "file:///etc/passwd", "data:text/plain,x", "http://"] {
            assert_eq!(step("https://a/v2/x", location), None, "{location}");
        }
        assert!(next(&Url::parse("https://a/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_login_in_a_location_is_dropped() {
        assert_eq!(step("https://a/", "https://user:secret@b/y#part").unwrap(), "https://b/y");
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
