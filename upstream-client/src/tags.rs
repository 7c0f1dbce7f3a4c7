//! Lists of tags (distribution-spec: end-8a, end-8b).

use http::{HeaderMap, header};
use oci_types::{RepositoryName, Tag};
use serde::Deserialize;
use url::Url;

use crate::{
    Priority, Upstream, UpstreamError,
    error::AttemptError,
    request::{RequestKind, UpstreamRequest},
};

/// Maximum size of a page in bytes. Registries without pagination send all tags of a repository in one response.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// One page of a repository's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPage {
    /// In the order of the upstream; invalid tags are skipped.
    pub tags: Vec<Tag>,
    /// `last` of the next page; `None` on the last page.
    pub next_last: Option<String>,
}

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

impl Upstream {
    /// Lists tags after `last`, at most `n` if the upstream supports pagination.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn list_tags(
        &self,
        repository: &RepositoryName,
        n: Option<u32>,
        last: Option<&str>,
        priority: Priority,
    ) -> Result<TagPage, UpstreamError> {
        let mut request = self.request(RequestKind::ListTags, repository, "tags/list");
        if let Some(n) = n {
            request.url.query_pairs_mut().append_pair("n", &n.to_string());
        }
        if let Some(last) = last {
            request.url.query_pairs_mut().append_pair("last", last);
        }
        let limit = self.transport.config.answer_timeout;
        self.transport.call(priority, limit, || self.try_list_tags(&request)).await
    }

    async fn try_list_tags(&self, request: &UpstreamRequest) -> Result<TagPage, AttemptError> {
        let (_, response) = self.transport.send(request).await?.content()?;
        let next = next_page(&request.url, response.headers());
        let (body, _memory) = self.transport.read_body(response, MAX_PAGE_BYTES).await?;
        let list: TagList = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::invalid_response("malformed tag list").with_source(error))?;
        let names = list.tags.unwrap_or_default();
        // A link without `last` has a parameter of its own; `last` works as well, as the specification requires.
        let next_last = next.and_then(|last| last.or_else(|| names.last().cloned()));
        Ok(TagPage { tags: names.iter().filter_map(|name| Tag::parse(name).ok()).collect(), next_last })
    }
}

/// `last` in the link to the next page: `None` without a next page, `Some(None)` when the link has no `last`.
fn next_page(page: &Url, headers: &HeaderMap) -> Option<Option<String>> {
    let mut links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    links.find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let relation =
            parameters.split([';', ',']).filter_map(|parameter| parameter.trim().strip_prefix("rel="));
        let is_next =
            relation.map(|value| value.trim_matches('"')).any(|value| value.eq_ignore_ascii_case("next"));
        let next = page.join(target).ok().filter(|_| is_next)?;
        Some(next.query_pairs().find(|(key, _)| key == "last").map(|(_, last)| last.into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(link: &str) -> Option<Option<String>> {
        let page = Url::parse("https://host/v2/a/tags/list").unwrap();
        next_page(&page, &HeaderMap::from_iter([(header::LINK, link.parse().unwrap())]))
    }

    #[test]
    fn the_link_to_the_next_page_has_its_first_position() {
        let last = Some(Some("3.19".to_owned()));
        assert_eq!(next(r#"</v2/a/tags/list?last=3.19&n=10>; rel="next""#), last);
        assert_eq!(next("<https://host/v2/a/tags/list?n=10&last=3.19>;rel=next"), last);
        assert_eq!(next(r#"</v2/a/tags/list?next_page=x>; rel="next""#), Some(None));
        assert_eq!(next(r#"</v2/a/tags/list?last=a>; rel="prev""#), None);
        assert_eq!(next("nonsense"), None);
        assert_eq!(next_page(&Url::parse("https://host/").unwrap(), &HeaderMap::new()), None);
    }
}
