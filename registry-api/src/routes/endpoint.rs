//! Which endpoint a path names, and which action a request for it is.

use std::borrow::Cow;

use actix_web::http::Method;
use percent_encoding::percent_decode_str;

use crate::access::Action;

/// An API, by the prefix of its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// The distribution API.
    Distribution,
    /// The admin API.
    Admin,
}

impl Api {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Distribution => "/v2",
            Self::Admin => "/api/v1",
        }
    }
}

/// An endpoint. `R` is the repository: its name, decoded and not validated, or what the name resolves to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a, R> {
    /// distribution-spec: end-1
    Base,
    /// Not part of the specification; served by most registries.
    Catalog,
    /// distribution-spec: end-3
    Manifest { repository: R, reference: Cow<'a, str> },
    /// distribution-spec: end-2
    Blob { repository: R, digest: Cow<'a, str> },
    /// distribution-spec: end-8
    Tags { repository: R },
    /// distribution-spec: end-12a, end-12b
    Referrers { repository: R, digest: Cow<'a, str> },
    /// The state of upstreams.
    Upstreams,
    /// The state of jobs.
    Jobs,
}

/// The pattern of each route, under which its requests are counted.
pub(super) mod pattern {
    pub(crate) const BASE: &str = "/v2";
    pub(crate) const BASE_SLASH: &str = "/v2/";
    pub(crate) const CATALOG: &str = "/v2/_catalog";
    pub(crate) const MANIFEST: &str = "/v2/{name:.+}/manifests/{reference:[^/]*}";
    pub(crate) const BLOB: &str = "/v2/{name:.+}/blobs/{digest:[^/]*}";
    pub(crate) const TAGS: &str = "/v2/{name:.+}/tags/list";
    pub(crate) const REFERRERS: &str = "/v2/{name:.+}/referrers/{digest:[^/]*}";
    pub(crate) const UPSTREAMS: &str = "/api/v1/upstreams";
    pub(crate) const JOBS: &str = "/api/v1/jobs";
}

impl<'a> Endpoint<'a, Cow<'a, str>> {
    /// The base endpoint, as at `/v2/`.
    pub(super) fn base() -> (&'static str, Self) {
        (pattern::BASE_SLASH, Self::Base)
    }

    /// Parses the path after the prefix of the API. Returns the pattern of the route, too. A repository may have the name of
    /// an endpoint, so the end of the path decides.
    pub(super) fn parse(api: Api, path: &'a str) -> Option<(&'static str, Self)> {
        match (api, path) {
            (Api::Admin, "/upstreams") => return Some((pattern::UPSTREAMS, Self::Upstreams)),
            (Api::Admin, "/jobs") => return Some((pattern::JOBS, Self::Jobs)),
            (Api::Admin, _) => return None,
            (Api::Distribution, "") => return Some((pattern::BASE, Self::Base)),
            (Api::Distribution, "/") => return Some((pattern::BASE_SLASH, Self::Base)),
            (Api::Distribution, "/_catalog") => return Some((pattern::CATALOG, Self::Catalog)),
            (Api::Distribution, _) => {}
        }
        let (before, last) = path.strip_prefix('/')?.rsplit_once('/')?;
        let (name, kind) = before.rsplit_once('/').filter(|(name, _)| !name.is_empty())?;
        let (repository, last) = (decode(name), decode(last));
        match (kind, &*last) {
            ("manifests", _) => Some((pattern::MANIFEST, Self::Manifest { repository, reference: last })),
            ("blobs", _) => Some((pattern::BLOB, Self::Blob { repository, digest: last })),
            ("referrers", _) => Some((pattern::REFERRERS, Self::Referrers { repository, digest: last })),
            ("tags", "list") => Some((pattern::TAGS, Self::Tags { repository })),
            _ => None,
        }
    }
}

impl<'a, R> Endpoint<'a, R> {
    /// The action of a request; `None` for a method that the endpoint does not have.
    pub(super) fn action(&self, method: &Method) -> Option<Action> {
        match (self, method) {
            (Self::Base, &Method::GET | &Method::HEAD) => Some(Action::Ping),
            (Self::Catalog, &Method::GET | &Method::HEAD) => Some(Action::ListRepositories),
            (
                Self::Manifest { .. } | Self::Blob { .. } | Self::Referrers { .. },
                &Method::GET | &Method::HEAD,
            ) => Some(Action::Pull),
            (Self::Tags { .. }, &Method::GET | &Method::HEAD) => Some(Action::ListTags),
            (Self::Upstreams, &Method::GET | &Method::HEAD) => Some(Action::ReadUpstreams),
            (Self::Jobs, &Method::GET | &Method::HEAD) => Some(Action::ReadJobs),
            _ => None,
        }
    }

    /// The repository, where the endpoint has one.
    pub(super) fn repository(&self) -> Option<&R> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. } => Some(repository),
            Self::Base | Self::Catalog | Self::Upstreams | Self::Jobs => None,
        }
    }

    /// The same endpoint with its repository resolved.
    pub(super) fn resolve<S, E>(self, resolve: impl FnOnce(R) -> Result<S, E>) -> Result<Endpoint<'a, S>, E> {
        Ok(match self {
            Self::Base => Endpoint::Base,
            Self::Catalog => Endpoint::Catalog,
            Self::Manifest { repository, reference } => {
                Endpoint::Manifest { repository: resolve(repository)?, reference }
            }
            Self::Blob { repository, digest } => Endpoint::Blob { repository: resolve(repository)?, digest },
            Self::Tags { repository } => Endpoint::Tags { repository: resolve(repository)? },
            Self::Referrers { repository, digest } => {
                Endpoint::Referrers { repository: resolve(repository)?, digest }
            }
            Self::Upstreams => Endpoint::Upstreams,
            Self::Jobs => Endpoint::Jobs,
        })
    }
}

/// Decodes a part of a path. Bytes that are not UTF-8 become a character that no name has.
fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &str) -> Option<Endpoint<'_, Cow<'_, str>>> {
        Endpoint::parse(Api::Distribution, path).map(|(_, endpoint)| endpoint)
    }

    #[test]
    fn the_end_of_a_path_decides_the_endpoint() {
        let manifest = |name: &'static str, reference: &'static str| {
            Some(Endpoint::Manifest { repository: name.into(), reference: reference.into() })
        };
        let blob = |name: &'static str, digest: &'static str| {
            Some(Endpoint::Blob { repository: name.into(), digest: digest.into() })
        };
        let tags = |name: &'static str| Some(Endpoint::Tags { repository: name.into() });
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
            (
                "/x/referrers/sha256:12",
                Some(Endpoint::Referrers { repository: "x".into(), digest: "sha256:12".into() }),
            ),
        ] {
            assert_eq!(endpoint(path), found, "{path}");
        }
    }

    #[test]
    fn a_path_without_a_name_or_with_more_segments_is_unknown() {
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
    fn requests_are_counted_under_the_pattern_of_their_route() {
        for (path, pattern) in [
            ("", "/v2"),
            ("/", "/v2/"),
            ("/_catalog", "/v2/_catalog"),
            ("/a/b/manifests/1", "/v2/{name:.+}/manifests/{reference:[^/]*}"),
            ("/a/b/blobs/1", "/v2/{name:.+}/blobs/{digest:[^/]*}"),
            ("/a/b/tags/list", "/v2/{name:.+}/tags/list"),
            ("/a/b/referrers/1", "/v2/{name:.+}/referrers/{digest:[^/]*}"),
        ] {
            assert_eq!(
                Endpoint::parse(Api::Distribution, path).map(|(pattern, _)| pattern),
                Some(pattern),
                "{path}"
            );
        }
    }
}
