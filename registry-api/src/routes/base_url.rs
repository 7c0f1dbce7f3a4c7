//! The URL of the public listener as the client of a request sees it.

use actix_web::{
    HttpRequest,
    http::{
        Version,
        header::{FORWARDED, HOST, HeaderMap, HeaderName, VIA},
    },
};
use url::Url;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The beginning of URLs in the answer to a request, without a final slash: `public_url`, or what the request and the proxies
/// before this process state. Empty, for relative URLs, where the scheme that the client used is not known.
pub(super) fn base_url(request: &HttpRequest, public_url: Option<&Url>) -> String {
    match public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => of_headers(request.headers(), request.version()).unwrap_or_default(),
    }
}

fn of_headers(headers: &HeaderMap, version: Version) -> Option<String> {
    let forwarded = first(headers, &FORWARDED);
    let parameter = |name: &str| {
        forwarded?.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        })
    };
    let proto = parameter("proto").or_else(|| first(headers, &X_FORWARDED_PROTO));
    let host = parameter("host").or_else(|| first(headers, &X_FORWARDED_HOST));
    // Proxies that set no header speak HTTP/1.0, as nginx does by default.
    let is_proxied = forwarded.is_some()
        || version < Version::HTTP_11
        || [VIA, X_FORWARDED_FOR, X_FORWARDED_HOST].iter().any(|name| headers.contains_key(name));
    let scheme = match proto.map(str::to_ascii_lowercase).as_deref() {
        Some("https") => "https",
        Some("http") => "http",
        Some(_) => return None,
        None if is_proxied => return None,
        None => "http",
    };
    let host = host.or_else(|| first(headers, &HOST)).filter(|host| is_authority(host))?;
    Some(format!("{scheme}://{host}"))
}

/// The first element of a list in a header.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim).filter(|text| !text.is_empty())
}

/// Whether a text is `HOST` or `HOST:PORT`, so that it cannot change the rest of a URL.
fn is_authority(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    text.bytes().all(allowed) && Url::parse(&format!("http://{text}/")).is_ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_base_is_what_the_client_used() {
        for (headers, expected) in [
            (&[("host", "registry:5000")][..], "http://registry:5000"),
            (&[("host", "[::1]:5000")], "http://[::1]:5000"),
            (&[("host", "a"), ("x-forwarded-proto", "https")], "https://a"),
            (
                &[("host", "a"), ("x-forwarded-proto", "HTTPS, http"), ("x-forwarded-host", "b:8443, c")],
                "https://b:8443",
            ),
            (&[("host", "a"), ("forwarded", "for=1.2.3.4;proto=https;host=\"b:1\", for=x")], "https://b:1"),
            (&[("host", "a"), ("forwarded", "for=1.2.3.4;Proto=http")], "http://a"),
            // A proxy that does not state the scheme.
            (&[("host", "a"), ("via", "1.1 varnish")], ""),
            (&[("host", "a"), ("x-forwarded-for", "1.2.3.4")], ""),
            (&[("host", "a"), ("x-forwarded-host", "b")], ""),
            (&[("host", "a"), ("forwarded", "for=1.2.3.4")], ""),
            (&[("host", "a"), ("x-forwarded-proto", "ftp")], ""),
            (&[("host", "a/b")], ""),
            (&[("host", "a@b")], ""),
            (&[("host", "a?b")], ""),
            (&[], ""),
        ] {
            let request =
                headers.iter().fold(TestRequest::default(), |request, header| request.insert_header(*header));
            assert_eq!(base_url(&request.to_http_request(), None), expected, "{headers:?}");
        }
        let old =
            TestRequest::default().version(Version::HTTP_10).insert_header(("host", "a")).to_http_request();
        assert_eq!(base_url(&old, None), "");
        let url = Url::parse("https://registry.example.com/prefix/").unwrap();
        assert_eq!(base_url(&old, Some(&url)), "https://registry.example.com/prefix");
    }
}
