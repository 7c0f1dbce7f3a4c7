//! Why an upstream did not give what was asked of it.

use std::{error::Error, time::Duration};

use circuit_breaker::Open;
use url::Url;

use crate::ssrf_guard;

/// Why an upstream did not give what was asked of it. No variant carries a credential, a token or a query string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// 404 or 410: upstream says that it is not there.
    #[error("upstream has no such content")]
    NotFound,
    /// 401 after authenticating, or 403. Many registries say so of what does not exist.
    #[error("upstream refused access")]
    Denied,
    /// 429, or a background request that was held back to spare the quota for clients.
    #[error("upstream's rate limit is reached")]
    RateLimited {
        /// How long upstream asked to wait, if it said.
        retry_after: Option<Duration>,
    },
    /// A 5xx answer.
    #[error("upstream answered {status}")]
    Server {
        /// The status code.
        status: u16,
    },
    /// An answer outside the protocol, or one that asks for what is not allowed (a redirect, a token realm).
    #[error("upstream gave a bad answer: {0}")]
    BadAnswer(String),
    /// The bytes do not hash to the digest that was asked for or promised.
    #[error("upstream sent bytes of another digest")]
    WrongDigest,
    /// A manifest or a list is larger than its limit.
    #[error("upstream's answer is too large")]
    TooLarge,
    /// 416: the range begins behind the end.
    #[error("upstream cannot serve that range")]
    RangeNotSatisfiable,
    /// No connection, no answer or no next byte in time.
    #[error("upstream did not answer in time")]
    Timeout,
    /// The name does not resolve, the connection was refused or broke, or TLS failed.
    #[error("upstream cannot be reached: {0}")]
    Unreachable(String),
    /// Too many failures in a row: nothing was sent.
    #[error("upstream failed repeatedly and is left alone for now")]
    CircuitOpen {
        /// When the next attempt is allowed.
        retry_after: Duration,
    },
    /// The upstream is configured as offline: nothing was sent.
    #[error("upstream is configured as offline")]
    Offline,
}

impl From<Open> for UpstreamError {
    fn from(open: Open) -> Self {
        Self::CircuitOpen { retry_after: open.retry_after }
    }
}

/// An error of one attempt, and whether the same request may be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: UpstreamError,
    pub(crate) retryable: bool,
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self { error, retryable: false }
    }
}

impl Failure {
    pub(crate) fn bad_answer(reason: impl Into<String>) -> Self {
        UpstreamError::BadAnswer(reason.into()).into()
    }

    /// What an exchange that ended without an answer, or a body that broke, means.
    pub(crate) fn from_transport(error: &reqwest::Error, url: &Url) -> Self {
        let host = host_and_port(url);
        if ssrf_guard::caused(error) {
            return Self::bad_answer(ssrf_guard::refusal(&host));
        }
        if error.is_timeout() {
            return UpstreamError::Timeout.into();
        }
        if error.is_builder() {
            return Self::bad_answer("it led to an address that cannot be asked");
        }
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        // reqwest's own texts name the whole URL; those of the innermost causes (system, TLS, HTTP) do not.
        let reason =
            if cause.is::<reqwest::Error>() { "the exchange failed".to_owned() } else { cause.to_string() };
        Self { error: UpstreamError::Unreachable(format!("{host}: {reason}")), retryable: true }
    }
}

/// `host:port` of a URL, for messages.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
