//! Pages of listings (distribution-spec: end-8a, end-8b).

/// One page of a listing in lexical order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// `last` of the request for the next page, where there is one.
    pub(crate) next_last: Option<String>,
}

/// Which page of a listing is requested.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageRequest<T> {
    /// The maximum number of items; absent, the default of the registry that has the list.
    pub(crate) n: Option<u32>,
    /// Only items after this one.
    pub(crate) last: Option<T>,
}

impl<T: ToString> Page<T> {
    /// The first `n` items. There is a next page when there are more, or when `next_last` says so.
    pub(crate) fn truncated(mut items: Vec<T>, n: Option<u32>, next_last: Option<String>) -> Self {
        let max = n.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        if items.len() <= max {
            return Self { items, next_last };
        }
        items.truncate(max);
        let next_last = items.last().map(ToString::to_string);
        Self { items, next_last }
    }

    /// A page of at most `n` rows from a query for [`rows_for`]`(n)` rows.
    pub(crate) fn of_rows(rows: Vec<T>, n: u32) -> Self {
        Self::truncated(rows, Some(n), None)
    }
}

/// The number of rows to query for a page of `n` items: one more shows whether there is a next page.
pub(crate) fn rows_for(n: u32) -> i64 {
    i64::from(n) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_when_there_is_more() {
        let next = |page: Page<&str>| page.next_last;
        assert_eq!(next(Page::of_rows(vec!["a", "b"], 2)), None);
        assert_eq!(next(Page::of_rows(vec!["a", "b", "c"], 2)).as_deref(), Some("b"));
        assert_eq!(next(Page::of_rows(Vec::new(), 2)), None);
        let upstream_has_more = Page::truncated(vec!["a"], Some(1), Some("a".to_owned()));
        assert_eq!(next(upstream_has_more).as_deref(), Some("a"));
        let upstream_ignores_n = Page::truncated(vec!["a", "b", "c"], Some(1), None);
        assert_eq!(upstream_ignores_n.items, ["a"]);
        assert_eq!(next(upstream_ignores_n).as_deref(), Some("a"));
    }
}
