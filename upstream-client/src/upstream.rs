//! An upstream, as the services see it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use oci_types::RepositoryName;
use url::Url;

use crate::{
    Observer, RateLimit, UpstreamConfig, UpstreamConfigError,
    request::{RequestKind, UpstreamRequest},
    transport::Transport,
};

/// One upstream registry. Cloning it is cheap, and clones share everything: connections, tokens, circuit, quota.
#[derive(Clone)]
pub struct Upstream {
    pub(crate) transport: Arc<Transport>,
}

/// For whom a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A client waits for it.
    Client,
    /// Nobody waits: it gives way where the quota is short, and fails with
    /// [`RateLimited`](crate::UpstreamError::RateLimited) without having been sent.
    Background,
}

/// How an upstream is doing, as far as its last answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// How long nothing will be sent, while the circuit is open.
    pub circuit_open_for: Option<Duration>,
    /// The quota, if upstream told one and its window is not over.
    pub rate_limit: Option<RateLimit>,
    /// What is left of the wait that a 429 asked for.
    pub retry_after: Option<Duration>,
}

impl Upstream {
    /// Sets up the clients for an upstream. Nothing is sent.
    ///
    /// # Errors
    /// [`UpstreamConfigError`] says which setting is wrong.
    pub fn new(config: UpstreamConfig, observer: Arc<dyn Observer>) -> Result<Self, UpstreamConfigError> {
        Ok(Self { transport: Arc::new(Transport::new(config, observer)?) })
    }

    /// The name it has in configuration, logs and metrics.
    pub fn name(&self) -> &str {
        &self.transport.config.name
    }

    /// Its circuit and quota at this moment.
    pub fn status(&self) -> UpstreamStatus {
        let now = Instant::now();
        UpstreamStatus {
            circuit_open_for: self.transport.breaker.remaining(now),
            rate_limit: self.transport.quota.limit(now),
            retry_after: self.transport.quota.retry_after(now),
        }
    }

    /// A request below `/v2/REPOSITORY/`.
    pub(crate) fn request(
        &self,
        kind: RequestKind,
        repository: &RepositoryName,
        rest: &str,
    ) -> UpstreamRequest {
        let url = endpoint(&self.transport.config.url, repository, rest);
        UpstreamRequest::new(kind, url, format!("repository:{repository}:pull"))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Upstream").field(&self.name()).finish()
    }
}

fn endpoint(base: &Url, repository: &RepositoryName, rest: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v2/{repository}/{rest}", base.path().trim_end_matches('/')));
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
