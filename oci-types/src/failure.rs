//! Why a registry did not deliver content, in the classes that a client can act on.

use std::time::Duration;

/// Why an upstream registry did not deliver content.
///
/// The client of upstreams reduces its errors to these classes; the HTTP server maps each class to one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// 404: the upstream does not have the content.
    NotFound,
    /// 401 or 403. Many registries respond with these for content that does not exist.
    Denied,
    /// 429, or the request was not sent in order to save the quota.
    RateLimited {
        /// The upstream's `Retry-After`, if it sent one.
        retry_after: Option<Duration>,
    },
    /// The upstream has the content, but it is not of a form that is served here: schema 1, or beyond a size limit.
    Unsupported,
    /// 5xx, no connection, or an invalid answer.
    BadGateway,
    /// No answer in time.
    Timeout,
    /// No request was sent: the circuit breaker is open, or the upstream is configured as offline.
    Unavailable {
        /// When the circuit breaker permits the next request, where that is known.
        retry_after: Option<Duration>,
    },
}
