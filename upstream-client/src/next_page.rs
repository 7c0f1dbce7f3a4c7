//! The link from a page of a list to the next one (RFC 8288).

use http::{HeaderMap, header};
use url::Url;

use crate::{UpstreamError, error::host_and_port, redirect::same_origin};

/// The URL of the page after `page`; `None` on the last one.
///
/// # Errors
/// The link leads to another host.
pub(crate) fn next_page(page: &Url, headers: &HeaderMap) -> Result<Option<Url>, UpstreamError> {
    let mut links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let next = links.find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let relation =
            parameters.split([';', ',']).filter_map(|parameter| parameter.trim().strip_prefix("rel="));
        let is_next =
            relation.map(|value| value.trim_matches('"')).any(|value| value.eq_ignore_ascii_case("next"));
        page.join(target).ok().filter(|_| is_next)
    });
    match next {
        None => Ok(None),
        // A proxy in front of the upstream may have changed the scheme or the host, and removed the path that it is below.
        Some(next) if is_path_of(page, &next) => {
            let mut url = page.clone();
            url.set_query(next.query());
            Ok(Some(url))
        }
        Some(next) if same_origin(page, &next) => Ok(Some(next)),
        Some(next) => {
            let host = host_and_port(&next);
            Err(UpstreamError::invalid_response(format!("link to the next page at another host: {host}")))
        }
    }
}

/// Whether the path of a link is that of the page, as the upstream itself knows it.
fn is_path_of(page: &Url, next: &Url) -> bool {
    let removed = page.path().strip_suffix(next.path());
    removed.is_some_and(|removed| removed.is_empty() || next.path().starts_with("/v2/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(link: &str) -> Result<Option<String>, UpstreamError> {
        let page = Url::parse("https://host/v2/a/tags/list?n=5").unwrap();
        let next = next_page(&page, &HeaderMap::from_iter([(header::LINK, link.parse().unwrap())]))?;
        Ok(next.map(String::from))
    }

    #[test]
    fn the_link_to_the_next_page_is_kept_as_it_is() {
        let url = |rest: &str| Ok(Some(format!("https://host{rest}")));
        for (link, expected) in [
            (r#"</v2/a/tags/list?last=3.19&n=10>; rel="next""#, url("/v2/a/tags/list?last=3.19&n=10")),
            ("<https://host/v2/a/tags/list?n=10&last=x%3D>;rel=next", url("/v2/a/tags/list?n=10&last=x%3D")),
            (r#"<?next_page=x>; rel="next""#, url("/v2/a/tags/list?next_page=x")),
            ("<http://internal:5000/v2/a/tags/list?last=b>; rel=next", url("/v2/a/tags/list?last=b")),
            ("<https://host/other?page=2>; rel=next", url("/other?page=2")),
            (r#"</v2/a/tags/list?last=a>; rel="prev""#, Ok(None)),
            ("nonsense", Ok(None)),
        ] {
            assert_eq!(next(link), expected, "{link}");
        }
        let below = Url::parse("https://host/some/path/v2/a/tags/list?n=5").unwrap();
        for (link, rest) in [
            ("</some/path/v2/a/tags/list?last=b>; rel=next", "/some/path/v2/a/tags/list?last=b"),
            ("</v2/a/tags/list?last=b>; rel=next", "/some/path/v2/a/tags/list?last=b"),
            ("</list?last=b>; rel=next", "/list?last=b"),
        ] {
            let next = next_page(&below, &HeaderMap::from_iter([(header::LINK, link.parse().unwrap())]));
            assert_eq!(next.map(|next| next.map(String::from)), url(rest), "{link}");
        }
        assert_eq!(next_page(&Url::parse("https://host/").unwrap(), &HeaderMap::new()), Ok(None));
        assert!(matches!(next("<https://elsewhere/list>; rel=next"), Err(UpstreamError::InvalidResponse(_))));
    }
}
