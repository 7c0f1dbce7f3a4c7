//! The referrers of a manifest, and the pages that clients get of them.

use std::time::Instant;

use oci_types::Referrer;

/// The size of a page in bytes. Clients limit the size of an index.
const PAGE_BYTES: usize = 1024 * 1024;

/// A list of referrers.
#[derive(Debug)]
pub(crate) struct KnownReferrers {
    referrers: Vec<Referrer>,
    /// When the request for the list began.
    began: Instant,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct ReferrersPage<'a> {
    pub(crate) referrers: Vec<&'a Referrer>,
    /// The digest of the last referrer, if there is a next page.
    pub(crate) next_last: Option<&'a str>,
}

impl KnownReferrers {
    pub(crate) fn new(referrers: Vec<Referrer>, began: Instant) -> Self {
        Self { referrers, began }
    }

    /// When the request for the list began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The memory of the list, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.referrers.iter().map(|one| size_of::<Referrer>() + 2 * one.length()).sum()
    }

    /// The page after the referrer with the digest `last`, with an artifact type or with all. Begins with the first one if
    /// there is no such referrer, or no longer.
    pub(crate) fn page(&self, artifact_type: Option<&str>, last: Option<&str>) -> ReferrersPage<'_> {
        let position = last.and_then(|last| self.referrers.iter().position(|one| one.digest() == last));
        let rest = self.referrers.iter().skip(position.map_or(0, |position| position + 1));
        let admitted =
            rest.filter(|one| artifact_type.is_none_or(|wanted| one.artifact_type() == Some(wanted)));
        let (mut referrers, mut bytes) = (Vec::new(), 0);
        for referrer in admitted {
            bytes += referrer.length();
            if bytes > PAGE_BYTES && !referrers.is_empty() {
                let next_last = referrers.last().map(|last: &&Referrer| last.digest());
                return ReferrersPage { referrers, next_last };
            }
            referrers.push(referrer);
        }
        ReferrersPage { referrers, next_last: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(descriptors: &[(&str, &str, usize)]) -> KnownReferrers {
        let descriptor = |(digest, artifact_type, length): &(&str, &str, usize)| serde_json::json!({ "digest": digest, "artifactType": artifact_type, "x": "x".repeat(*length) });
        let manifests: Vec<_> = descriptors.iter().map(descriptor).collect();
        let index = serde_json::json!({ "manifests": manifests }).to_string();
        KnownReferrers::new(Referrer::parse_index(index.as_bytes()).unwrap(), Instant::now())
    }

    fn digests<'a>(page: &ReferrersPage<'a>) -> Vec<&'a str> {
        page.referrers.iter().map(|one| one.digest()).collect()
    }

    #[test]
    fn a_filter_admits_one_artifact_type() {
        let known = known(&[("a", "x", 1), ("b", "y", 1), ("c", "x", 1)]);
        for (artifact_type, expected) in
            [(None, &["a", "b", "c"][..]), (Some("x"), &["a", "c"]), (Some("y"), &["b"]), (Some("z"), &[])]
        {
            assert_eq!(digests(&known.page(artifact_type, None)), expected, "{artifact_type:?}");
        }
    }

    #[test]
    fn pages_are_bounded_in_bytes_and_follow_each_other() {
        let half = PAGE_BYTES / 2;
        let known = known(&[("a", "x", half), ("b", "y", half), ("c", "x", 2 * PAGE_BYTES), ("d", "x", 1)]);
        let (mut last, mut pages) = (None, Vec::new());
        for _ in 0..4 {
            let page = known.page(None, last);
            pages.push(digests(&page));
            last = page.next_last;
            if last.is_none() {
                break;
            }
        }
        assert_eq!(pages, [["a"], ["b"], ["c"], ["d"]]);
        assert_eq!(digests(&known.page(Some("x"), Some("a"))), ["c"]);
        assert_eq!(digests(&known.page(None, Some("unknown"))), ["a"]);
    }
}
