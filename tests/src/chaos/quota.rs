//! A pull quota in the manner of Docker Hub: every `GET` of a manifest counts, a `HEAD` does not.

use std::sync::Mutex;

use super::http::Request;
use super::resource::Resource;

/// Seconds over which such a quota counts.
const WINDOW: u64 = 21_600;

/// A quota, if there is one: how many pulls it allows, how many are left.
#[derive(Debug, Default)]
pub(super) struct Quota(Mutex<Option<(u64, u64)>>);

impl Quota {
    pub(super) fn set(&self, quota: Option<(u64, u64)>) {
        *self.0.lock().unwrap() = quota;
    }

    /// Counts a request and adds the remaining quota to the response; beyond the quota the response is 429.
    pub(super) fn count(&self, request: &Request, path: &str, resource: Resource) -> Resource {
        let mut quota = self.0.lock().unwrap();
        let Some((limit, remaining)) = quota.as_mut().filter(|_| path.contains("/manifests/")) else {
            return resource;
        };
        let mut resource = resource;
        if request.method == "GET" {
            match remaining.checked_sub(1) {
                Some(left) => *remaining = left,
                None => {
                    resource = Resource::error(429, "TOOMANYREQUESTS", "the pull quota is used up");
                    resource.headers.push(("Retry-After".to_owned(), "60".to_owned()));
                }
            }
        }
        for (name, value) in [("ratelimit-limit", *limit), ("ratelimit-remaining", *remaining)] {
            resource.headers.push((name.to_owned(), format!("{value};w={WINDOW}")));
        }
        resource
    }
}
