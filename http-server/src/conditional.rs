//! `If-None-Match` (RFC 9110, section 13.1.2).

use actix_web::http::header::{HeaderMap, IF_NONE_MATCH};

/// Whether `If-None-Match` names `etag`, a strong entity tag with its quotes: the answer to `GET` and `HEAD` is then 304.
///
/// The comparison is weak (RFC 9110, section 8.8.3.2): `W/` in front of a tag is ignored, since
/// compressing caches and proxies weaken the tags that they forward.
pub fn if_none_match(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .any(|list| list.trim() == "*" || entity_tags(list).any(|tag| tag == etag))
}

/// The entity tags of a list, quotes included, without `W/`. A tag may contain commas.
fn entity_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (_, opened) = rest.split_once('"')?;
        let start = rest.len() - opened.len() - 1;
        let end = start + opened.find('"')? + 2;
        let tag = rest.get(start..end)?;
        rest = rest.get(end..)?;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn tags_are_compared_weakly_and_lists_are_split_at_their_quotes() {
        for (values, matches) in [
            (&["\"a\""][..], true),
            (&["W/\"a\""], true),
            (&["*"], true),
            (&["\"b\", W/\"a\""], true),
            (&["\"b\"", "\"a\""], true),
            (&["\"b\""], false),
            (&["\"b,a\""], false),
            (&["\"b,a\",\"a\""], true),
            (&["a"], false),
            (&["\"a"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| headers.append(IF_NONE_MATCH, HeaderValue::from_static(value)));
            assert_eq!(if_none_match(&headers, "\"a\""), matches, "{values:?}");
        }
    }
}
