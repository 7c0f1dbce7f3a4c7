//! The tags of a repository as its upstream lists them, and the pages that clients get of them.
//!
//! Upstreams differ in the order of their lists, in the maximum size of a page, and in the parameters of the link to the next
//! one. Clients get pages of the collected list, in the order of the upstream: `last` is a tag for every upstream.

use std::{collections::HashSet, time::Instant};

use oci_types::Tag;
use upstream_client::{TagCursor, TagPage};

use crate::listing::{Page, PageRequest};

/// The number of pages without a new tag after which a list counts as complete. Some upstreams link to the same page again.
const MAX_REPEATED_PAGES: u32 = 3;

/// The first part of a repository's list of tags, or all of it.
#[derive(Debug, Clone)]
pub(crate) struct KnownTags {
    tags: Vec<Tag>,
    /// Where the list continues.
    next: Option<TagCursor>,
    /// The pages without a new tag at the end of this part.
    repeated_pages: u32,
    /// When the request for the first page began.
    began: Instant,
}

impl KnownTags {
    /// The list that begins with a page.
    pub(crate) fn new(first: TagPage, began: Instant) -> Self {
        Self { tags: Vec::new(), next: None, repeated_pages: 0, began }.with(first)
    }

    /// The list with the page that follows.
    pub(crate) fn with(&self, page: TagPage) -> Self {
        let mut known: HashSet<&Tag> = self.tags.iter().collect();
        let new: Vec<Tag> = page.tags.iter().filter(|tag| known.insert(tag)).cloned().collect();
        let repeated_pages = if new.is_empty() { self.repeated_pages + 1 } else { 0 };
        let next = page.next.filter(|_| repeated_pages < MAX_REPEATED_PAGES);
        let tags = [self.tags.as_slice(), &new].concat();
        Self { tags, next, repeated_pages, began: self.began }
    }

    /// The number of tags.
    pub(crate) fn len(&self) -> usize {
        self.tags.len()
    }

    /// Where the list continues; `None` if it is complete.
    pub(crate) fn next(&self) -> Option<&TagCursor> {
        self.next.as_ref()
    }

    /// When the request for the first page began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The memory of the tags, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.tags.iter().map(|tag| tag.as_str().len() + size_of::<Tag>()).sum()
    }

    /// A page of at most `n` tags. `None` if it is not known whether there are more of them.
    pub(crate) fn page(&self, request: &PageRequest<Tag>, n: u32) -> Option<Page<Tag>> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let enough = |page: &[Tag]| page.len() > n || self.next.is_none();
        let Some(last) = &request.last else {
            return enough(&self.tags).then(|| page(&self.tags, n));
        };
        if let Some(position) = self.tags.iter().position(|tag| tag == last) {
            let rest = self.tags.get(position + 1..).unwrap_or_default();
            return enough(rest).then(|| page(rest, n));
        }
        // A tag that is not listed, or no longer.
        let later = || self.tags.iter().filter(|tag| *tag > last).take(n.saturating_add(1)).cloned();
        self.next.is_none().then(|| page(&later().collect::<Vec<_>>(), n))
    }
}

/// The first `n` of `tags`.
fn page(tags: &[Tag], n: usize) -> Page<Tag> {
    let items = tags.get(..n).unwrap_or(tags);
    let next_last = items.last().filter(|_| items.len() < tags.len()).map(ToString::to_string);
    Page { items: items.to_vec(), next_last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| Tag::parse(name).unwrap()).collect()
    }

    fn page_of(known: &KnownTags, n: u32, last: Option<&str>) -> Option<(Vec<String>, Option<String>)> {
        let request = PageRequest { n: Some(n), last: last.map(|last| Tag::parse(last).unwrap()) };
        let page = known.page(&request, n)?;
        Some((page.items.iter().map(ToString::to_string).collect(), page.next_last))
    }

    fn page(names: &[&str], next: Option<&str>) -> Option<(Vec<String>, Option<String>)> {
        Some((names.iter().map(|name| (*name).to_owned()).collect(), next.map(str::to_owned)))
    }

    #[test]
    fn pages_follow_the_order_of_the_upstream() {
        let list = TagPage { tags: tags(&["v2", "v10", "latest", "v1"]), next: None };
        let known = KnownTags::new(list, Instant::now());
        for (n, last, expected) in [
            (2, None, page(&["v2", "v10"], Some("v10"))),
            (2, Some("v10"), page(&["latest", "v1"], None)),
            (9, None, page(&["v2", "v10", "latest", "v1"], None)),
            (4, None, page(&["v2", "v10", "latest", "v1"], None)),
            (2, Some("v1"), page(&[], None)),
            (1, Some("unknown"), page(&["v2"], Some("v2"))),
            (9, Some("z"), page(&[], None)),
        ] {
            assert_eq!(page_of(&known, n, last), expected, "{n} {last:?}");
        }
    }

    #[test]
    fn a_page_beyond_the_known_part_is_not_known() {
        let cursor = cursor();
        let first = TagPage { tags: tags(&["a", "b"]), next: Some(cursor.clone()) };
        let known = KnownTags::new(first, Instant::now());
        assert_eq!(page_of(&known, 1, None), page(&["a"], Some("a")));
        for (n, last) in [(2, None), (1, Some("b")), (1, Some("c"))] {
            assert_eq!(page_of(&known, n, last), None, "{n} {last:?}");
        }
        let known = known.with(TagPage { tags: tags(&["b", "c"]), next: None });
        assert_eq!(page_of(&known, 2, Some("a")), page(&["b", "c"], None));
    }

    #[test]
    fn a_list_whose_pages_repeat_is_complete() {
        let first = TagPage { tags: tags(&["a", "b"]), next: Some(cursor()) };
        let mut known = KnownTags::new(first.clone(), Instant::now());
        for _ in 0..MAX_REPEATED_PAGES {
            assert!(known.next().is_some());
            known = known.with(first.clone());
        }
        assert_eq!((known.len(), known.next()), (2, None));
    }

    /// A cursor as an upstream gives it.
    fn cursor() -> TagCursor {
        TagCursor::parse("https://registry.test/v2/a/tags/list?last=b").unwrap()
    }
}
