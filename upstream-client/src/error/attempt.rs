//! The error of one attempt.

use std::{error::Error, iter};

use settings::proxy::ProxyAddress;
use url::Url;

use super::{ProxyRefusal, UpstreamError};
use crate::ssrf_guard;

/// The error of one attempt of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptError {
    pub(crate) error: UpstreamError,
    /// Whether an immediate retry may succeed.
    pub(crate) retryable: bool,
}

impl From<UpstreamError> for AttemptError {
    fn from(error: UpstreamError) -> Self {
        Self { error, retryable: false }
    }
}

impl AttemptError {
    /// Whether the answer of a token service is that it issues no such token.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.error,
            UpstreamError::Denied | UpstreamError::LoginRefused { .. } | UpstreamError::InvalidResponse(_)
        )
    }

    /// What an exchange without a response, or a body that broke, proves. `proxy`: the one that the request was sent to.
    pub(crate) fn from_transport(error: reqwest::Error, url: &Url, proxy: Option<&ProxyAddress>) -> Self {
        let host = host_and_port(url);
        let error = error.without_url();
        if ssrf_guard::is_cause_of(&error) {
            return ssrf_guard::blocked(&host).with_source(error).into();
        }
        if error.is_timeout() {
            return UpstreamError::Timeout.into();
        }
        if error.is_builder() {
            return UpstreamError::invalid_response("reference to an invalid URL").with_source(error).into();
        }
        let hop = match (proxy, TunnelError::of(&error)) {
            (None, _) => host,
            (Some(proxy), Some(TunnelError::LoginRefused)) => {
                return refused(proxy, ProxyRefusal::Login);
            }
            (Some(proxy), Some(TunnelError::Refused)) => {
                return refused(proxy, ProxyRefusal::Connection { host });
            }
            (Some(proxy), Some(TunnelError::Broken)) => format!("the proxy {}", proxy.host()),
            // Requests to http URLs are sent to the proxy itself.
            (Some(proxy), None) if url.scheme() == "http" && error.is_connect() => {
                format!("the proxy {}", proxy.host())
            }
            (Some(proxy), None) => format!("{host} through the proxy {}", proxy.host()),
        };
        let reason = format!("{hop}: {}", root_cause(&error));
        Self { error: UpstreamError::unreachable(reason).with_source(error), retryable: true }
    }
}

fn refused(proxy: &ProxyAddress, refusal: ProxyRefusal) -> AttemptError {
    UpstreamError::ProxyRefused { proxy: proxy.host().to_owned(), refusal }.into()
}

/// Why a proxy did not open a tunnel.
enum TunnelError {
    /// It answered with 407.
    LoginRefused,
    /// It answered with another status than 200, or not with HTTP.
    Refused,
    /// It was not reached, or closed the connection.
    Broken,
}

impl TunnelError {
    /// The HTTP client has neither a public type for these errors nor the status: a test compares the texts with it.
    fn of(error: &reqwest::Error) -> Option<Self> {
        let mut causes = iter::successors(error.source(), |cause| (*cause).source());
        causes.find_map(|cause| {
            Some(match cause.to_string().strip_prefix("tunnel error: ")? {
                "proxy authorization required" => Self::LoginRefused,
                "unsuccessful" | "proxy response headers too long" => Self::Refused,
                _ => Self::Broken,
            })
        })
    }
}

/// The text of the innermost error. Those of the system, TLS and HTTP are precise, that of reqwest is not.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<reqwest::Error>() { "exchange failed".to_owned() } else { cause.to_string() }
}

/// `host:port` of a URL, for messages: the rest of a URL may contain secrets.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
