//! Which endpoint a path means, and which parts of it are names.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// An endpoint of the distribution API, with the names in its path: decoded, and not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    /// distribution-spec: end-1
    Base,
    /// Not in the specification, and known to all registries.
    Catalog,
    /// distribution-spec: end-3
    Manifest { name: Cow<'a, str>, reference: Cow<'a, str> },
    /// distribution-spec: end-2
    Blob { name: Cow<'a, str>, digest: Cow<'a, str> },
    /// distribution-spec: end-8
    Tags { name: Cow<'a, str> },
}

impl<'a> Endpoint<'a> {
    /// Reads what follows `/v2` in a path, and tells the pattern to count the request under. A repository may be named as
    /// an endpoint is, so what counts is the end of the path.
    pub(super) fn parse(path: &'a str) -> Option<(&'static str, Self)> {
        match path {
            "" => return Some(("/v2", Self::Base)),
            "/" => return Some(("/v2/", Self::Base)),
            "/_catalog" => return Some(("/v2/_catalog", Self::Catalog)),
            _ => {}
        }
        let (before, last) = path.strip_prefix('/')?.rsplit_once('/')?;
        let (name, kind) = before.rsplit_once('/').filter(|(name, _)| !name.is_empty())?;
        let (name, last) = (decoded(name), decoded(last));
        match (kind, &*last) {
            ("manifests", _) => {
                Some(("/v2/{name:.+}/manifests/{reference:[^/]*}", Self::Manifest { name, reference: last }))
            }
            ("blobs", _) => Some(("/v2/{name:.+}/blobs/{digest:[^/]*}", Self::Blob { name, digest: last })),
            ("tags", "list") => Some(("/v2/{name:.+}/tags/list", Self::Tags { name })),
            _ => None,
        }
    }
}

/// What is no UTF-8 becomes a character that no name has.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &str) -> Option<Endpoint<'_>> {
        Endpoint::parse(path).map(|(_, endpoint)| endpoint)
    }

    #[test]
    fn the_end_of_a_path_says_which_endpoint_it_is() {
        let manifest = |name: &'static str, reference: &'static str| {
            Some(Endpoint::Manifest { name: name.into(), reference: reference.into() })
        };
        let blob = |name: &'static str, digest: &'static str| {
            Some(Endpoint::Blob { name: name.into(), digest: digest.into() })
        };
        let tags = |name: &'static str| Some(Endpoint::Tags { name: name.into() });
        for (path, found) in [
            ("", Some(Endpoint::Base)),
            ("/", Some(Endpoint::Base)),
            ("/_catalog", Some(Endpoint::Catalog)),
            ("/library/alpine/manifests/3", manifest("library/alpine", "3")),
            ("/x/manifests/sha256:12", manifest("x", "sha256:12")),
            ("/x/manifests/", manifest("x", "")),
            ("/manifests/manifests/manifests", manifest("manifests", "manifests")),
            ("/manifests/x/manifests/1", manifest("manifests/x", "1")),
            ("/x/blobs/manifests/tags", manifest("x/blobs", "tags")),
            ("/x/tags/manifests/list", manifest("x/tags", "list")),
            ("///manifests/1", manifest("/", "1")),
            ("/a%2Fb/manifests/1%2B1", manifest("a/b", "1+1")),
            ("/a%252Fb/manifests/%FF", manifest("a%2Fb", "\u{fffd}")),
            ("/blobs/blobs/blobs", blob("blobs", "blobs")),
            ("/x/blobs/sha256:12", blob("x", "sha256:12")),
            ("/x/manifests/blobs/", blob("x/manifests", "")),
            ("/x/tags/list", tags("x")),
            ("/tags/list/tags/list", tags("tags/list")),
            ("/x/manifests/tags/list", tags("x/manifests")),
        ] {
            assert_eq!(endpoint(path), found, "{path}");
        }
    }

    #[test]
    fn a_path_without_a_name_or_with_more_after_it_is_none() {
        for path in [
            "/manifests/1",
            "//manifests/1",
            "/blobs/sha256:12",
            "/tags/list",
            "/x/manifests",
            "/x/manifests/1/",
            "/x/blobs/uploads/",
            "/x/tags/list/",
            "/x/tags/",
            "/_catalog/",
            "//",
            "/x",
        ] {
            assert_eq!(endpoint(path), None, "{path}");
        }
    }

    #[test]
    fn requests_are_counted_under_the_pattern_of_their_path() {
        for (path, pattern) in [
            ("", "/v2"),
            ("/", "/v2/"),
            ("/_catalog", "/v2/_catalog"),
            ("/a/b/manifests/1", "/v2/{name:.+}/manifests/{reference:[^/]*}"),
            ("/a/b/blobs/1", "/v2/{name:.+}/blobs/{digest:[^/]*}"),
            ("/a/b/tags/list", "/v2/{name:.+}/tags/list"),
        ] {
            assert_eq!(Endpoint::parse(path).map(|(pattern, _)| pattern), Some(pattern), "{path}");
        }
    }
}
