//! The error of one attempt.

use std::error::Error;

use url::Url;

use super::UpstreamError;
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

    /// What an exchange without a response, or a body that broke, proves.
    pub(crate) fn from_transport(error: reqwest::Error, url: &Url) -> Self {
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
        let reason = format!("{host}: {}", root_cause(&error));
        Self { error: UpstreamError::unreachable(reason).with_source(error), retryable: true }
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
