//! The client of one upstream.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use oci_types::RepositoryName;
use url::Url;

use crate::{
    Observer, RateLimit, UpstreamConfig, UpstreamConfigError, clock,
    request::{RequestKind, UpstreamRequest},
    transport::Transport,
};

/// The client of one upstream registry. Clones are cheap and share connections, tokens, circuit and rate limit.
#[derive(Clone)]
pub struct Upstream {
    pub(crate) transport: Arc<Transport>,
}

/// The purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A client waits for the result.
    Client,
    /// No client waits: while the quota is low the call fails with
    /// [`RateLimited`](crate::UpstreamError::RateLimited) and sends nothing.
    Background,
}

/// The current state of an upstream, as far as its responses show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Time until an open circuit admits a request.
    pub circuit_open_for: Option<Duration>,
    /// The quota, until the end of its window.
    pub rate_limit: Option<RateLimit>,
    /// Time until the end of the wait after a 429.
    pub retry_after: Option<Duration>,
}

impl Upstream {
    /// A client of an upstream. Nothing is sent.
    ///
    /// # Errors
    /// [`UpstreamConfigError`] names the invalid setting.
    pub fn new(config: UpstreamConfig, observer: Arc<dyn Observer>) -> Result<Self, UpstreamConfigError> {
        Ok(Self { transport: Arc::new(Transport::new(config, observer)?) })
    }

    /// The name in configuration, logs and metrics.
    pub fn name(&self) -> &str {
        &self.transport.config.name
    }

    /// Whether all requests fail without being sent.
    pub fn is_offline(&self) -> bool {
        self.transport.config.offline
    }

    /// The current state.
    pub fn status(&self) -> UpstreamStatus {
        self.status_at(clock::now())
    }

    pub(crate) fn status_at(&self, now: Instant) -> UpstreamStatus {
        let Transport { breaker, rate_limit, .. } = self.transport.as_ref();
        UpstreamStatus {
            circuit_open_for: breaker.remaining(now),
            rate_limit: rate_limit.quota(now),
            retry_after: rate_limit.retry_after(now),
        }
    }

    /// A request to a path below `/v2/REPOSITORY/`.
    pub(crate) fn request(
        &self,
        kind: RequestKind,
        repository: &RepositoryName,
        path: &str,
    ) -> UpstreamRequest {
        let url = endpoint(&self.transport.config.url, repository, path);
        UpstreamRequest::new(kind, url, format!("repository:{repository}:pull"))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Upstream").field(&self.name()).finish()
    }
}

fn endpoint(base: &Url, repository: &RepositoryName, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v2/{repository}/{path}", base.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_the_prefix_of_the_upstream() {
        let name = RepositoryName::parse("library/alpine").unwrap();
        for (base, expected) in [
            ("https://host", "https://host/v2/library/alpine/manifests/3.19"),
            (
                "https://host:5000/some/prefix/",
                "https://host:5000/some/prefix/v2/library/alpine/manifests/3.19",
            ),
        ] {
            assert_eq!(endpoint(&Url::parse(base).unwrap(), &name, "manifests/3.19").as_str(), expected);
        }
    }
}
