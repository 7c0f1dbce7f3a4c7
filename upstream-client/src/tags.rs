//! Lists of tags (distribution-spec: end-8a, end-8b).

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use oci_types::{RepositoryName, Tag};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use url::Url;

use crate::{
    Priority, Upstream, UpstreamError,
    error::AttemptError,
    next_page::next_page,
    request::{RequestKind, UpstreamRequest},
};

/// Maximum size of a page in bytes. Registries without pagination send all tags of a repository in one response.
pub(crate) const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// The maximum number of tags of a repository that are listed, in one page or in several.
pub const MAX_TAGS: usize = 200_000;

/// The page sizes to request, each if the one before is refused. `None` leaves the size to the upstream.
const PAGE_SIZES: [Option<u32>; 3] = [Some(10_000), Some(1000), None];

/// One page of a repository's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPage {
    /// In the order of the upstream; invalid tags are skipped.
    pub tags: Vec<Tag>,
    /// The next page; `None` on the last one.
    pub next: Option<TagCursor>,
}

/// The next page of a tag list, as the upstream's `Link` names it. Its parameters are the upstream's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCursor(Url);

impl TagCursor {
    /// A cursor at a URL, for tests of callers.
    #[doc(hidden)]
    pub fn parse(url: &str) -> Option<Self> {
        Url::parse(url).ok().map(Self)
    }
}

/// The first of [`PAGE_SIZES`] that an upstream has not refused.
#[derive(Debug, Default)]
pub(crate) struct PageSize(AtomicUsize);

#[derive(Deserialize)]
struct TagList {
    tags: Option<ListedTags>,
}

/// The valid tags of a page; `None` if there are more than [`MAX_TAGS`].
struct ListedTags(Option<Vec<Tag>>);

impl<'de> Deserialize<'de> for ListedTags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListedTagsVisitor)
    }
}

/// Keeps the valid tags of a list up to the maximum: a tag needs more memory than its text.
struct ListedTagsVisitor;

impl<'de> Visitor<'de> for ListedTagsVisitor {
    type Value = ListedTags;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of tags")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ListedTags, A::Error> {
        let mut tags = Vec::new();
        while let Some(ListedTag(tag)) = list.next_element()? {
            if tags.len() == MAX_TAGS && tag.is_some() {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(ListedTags(None));
            }
            tags.extend(tag);
        }
        Ok(ListedTags(Some(tags)))
    }
}

/// An entry of a tag list; `None` if it is not a valid tag.
struct ListedTag(Option<Tag>);

impl<'de> Deserialize<'de> for ListedTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListedTagVisitor;

        impl Visitor<'_> for ListedTagVisitor {
            type Value = ListedTag;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a tag")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ListedTag, E> {
                Ok(ListedTag(Tag::parse(text).ok()))
            }
        }

        deserializer.deserialize_str(ListedTagVisitor)
    }
}

impl Upstream {
    /// Gets a page of a tag list: the first one, or the one at `cursor`.
    ///
    /// # Errors
    /// [`UpstreamError`]; `TooLarge` when the page has more than [`MAX_TAGS`] tags.
    pub async fn list_tags(
        &self,
        repository: &RepositoryName,
        cursor: Option<&TagCursor>,
        priority: Priority,
    ) -> Result<TagPage, UpstreamError> {
        let limits = self.transport.metadata_limits();
        let first = self.request(RequestKind::ListTags, repository, "tags/list");
        if let Some(TagCursor(url)) = cursor {
            let request = UpstreamRequest::new(RequestKind::ListTags, url.clone(), first.scope);
            return self.transport.call(priority, limits, || self.try_list_tags(&request)).await;
        }
        let page_size = &self.transport.page_size.0;
        // At most one request for each size.
        loop {
            let index = page_size.load(Ordering::Relaxed);
            let size = PAGE_SIZES.get(index).copied().flatten();
            let mut url = first.url.clone();
            if let Some(size) = size {
                url.query_pairs_mut().append_pair("n", &size.to_string());
            }
            let request = UpstreamRequest::new(RequestKind::ListTags, url, first.scope.clone());
            match self.transport.call(priority, limits, || self.try_list_tags(&request)).await {
                Err(error) if size.is_some() && error.is_refused_request() => {
                    page_size.fetch_max(index + 1, Ordering::Relaxed);
                }
                result => return result,
            }
        }
    }

    async fn try_list_tags(&self, request: &UpstreamRequest) -> Result<TagPage, AttemptError> {
        let (_, response) = self.transport.send(request).await?.content()?;
        let next = next_page(&request.url, response.headers())?.map(TagCursor);
        let (body, _memory) = self.transport.read_body(response, MAX_PAGE_BYTES).await?;
        let list: TagList = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::invalid_response("malformed tag list").with_source(error))?;
        let tags = match list.tags {
            None => Vec::new(),
            Some(ListedTags(tags)) => tags.ok_or(UpstreamError::TooLarge)?,
        };
        Ok(TagPage { tags, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: impl Iterator<Item = String>) -> Option<Vec<Tag>> {
        let names: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
        let body = format!("{{\"tags\":[{}]}}", names.join(","));
        serde_json::from_str::<TagList>(&body).unwrap().tags.unwrap().0
    }

    #[test]
    fn a_page_has_a_bounded_number_of_valid_tags() {
        let tags = |count: usize| (0..count).map(|number| number.to_string());
        let invalid = || std::iter::repeat_n("-".to_owned(), 1000);
        let full = listed(invalid().chain(tags(MAX_TAGS)).chain(invalid()));
        assert_eq!(full.map(|tags| tags.len()), Some(MAX_TAGS));
        assert_eq!(listed(tags(MAX_TAGS + 1).chain(invalid())), None);
    }
}
