//! Why an upstream did not deliver the requested content.

mod attempt;

use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

use circuit_breaker::Open;

pub(crate) use self::attempt::{AttemptError, host_and_port};

/// Why an upstream did not deliver the requested content. No variant contains a credential, a token or a query string.
///
/// The text states the cause, so that one line of a log suffices; [`source`](Error::source) gives the underlying error.
/// Errors are cloned to every reader of a fill, and so share their sources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// 404 or 410: the upstream does not have the content.
    #[error("upstream does not have the content")]
    NotFound,
    /// 401 in spite of authentication, or 403. Many registries respond so for content that does not exist.
    #[error("upstream denied access")]
    Denied,
    /// The configured login is not accepted.
    #[error("{issuer} refused the configured login")]
    LoginRefused {
        /// What refused it, with its host: a token service, or the upstream.
        issuer: String,
    },
    /// A login is required, and none is configured.
    #[error("upstream requires a login, and none is configured")]
    LoginRequired,
    /// The configured login cannot be read.
    #[error("failed to read the configured login: {reason}")]
    LoginUnreadable {
        /// Why, without any of its contents.
        reason: String,
    },
    /// 429, or a background request that was not sent in order to leave the quota to clients.
    #[error("upstream rate limit reached")]
    RateLimited {
        /// `Retry-After`, if the upstream sent one.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("upstream responded with status {status}")]
    Server {
        /// The status code.
        status: u16,
    },
    /// A response outside the protocol, or one that refers to what is not permitted (a redirect, a token realm).
    #[error(transparent)]
    InvalidResponse(InvalidResponse),
    /// The bytes or the headers do not match the requested or the declared digest.
    #[error("digest mismatch in the response from upstream")]
    DigestMismatch,
    /// A manifest or a list exceeds its size limit.
    #[error("response from upstream exceeds the size limit")]
    TooLarge,
    /// 416: the range begins behind the end.
    #[error("range not satisfiable")]
    RangeNotSatisfiable,
    /// No connection, no response or no further bytes in time.
    #[error("timeout waiting for upstream")]
    Timeout,
    /// The name does not resolve, the connection was refused or broke, or TLS failed.
    #[error(transparent)]
    Unreachable(Unreachable),
    /// The proxy did not forward the request: its rules, or its login.
    #[error("the proxy {proxy} {refusal}")]
    ProxyRefused {
        /// Host and port of the proxy.
        proxy: String,
        /// What it refused.
        refusal: ProxyRefusal,
    },
    /// Too many consecutive failures: no request was sent.
    #[error("upstream circuit is open after repeated failures")]
    CircuitOpen {
        /// Time until the next request is permitted.
        retry_after: Duration,
    },
    /// Too many requests to the upstream are in progress: no request was sent.
    #[error("too many requests to upstream are in progress")]
    Busy,
    /// The upstream is configured as offline: no request was sent.
    #[error("upstream is configured as offline")]
    Offline,
}

/// What a proxy refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyRefusal {
    /// 407: the login, which is missing or not accepted.
    #[error("requires a login, or refused the configured one")]
    Login,
    /// The connection to a host, with any other status.
    #[error("refused the connection to {host}")]
    Connection {
        /// Host and port.
        host: String,
    },
}

/// An underlying error, shared by the clones of an [`UpstreamError`].
type Source = Arc<dyn Error + Send + Sync>;

/// What is wrong with a response. Equal to another one with the same reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("invalid response from upstream: {reason}")]
pub struct InvalidResponse {
    reason: Cow<'static, str>,
    /// The status code, where it is what is wrong.
    status: Option<u16>,
    source: Option<Source>,
}

/// Why an upstream, or a host that it refers to, cannot be reached. Equal to another one with the same reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to reach upstream: {reason}")]
pub struct Unreachable {
    reason: Cow<'static, str>,
    source: Option<Source>,
}

impl PartialEq for InvalidResponse {
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason
    }
}

impl Eq for InvalidResponse {}

impl PartialEq for Unreachable {
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason
    }
}

impl Eq for Unreachable {}

impl UpstreamError {
    /// [`InvalidResponse`](Self::InvalidResponse) without an underlying error. `reason` is a noun phrase.
    pub fn invalid_response(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidResponse(InvalidResponse { reason: reason.into(), status: None, source: None })
    }

    /// [`InvalidResponse`](Self::InvalidResponse) for a status that the protocol does not have.
    pub(crate) fn unexpected_status(status: u16) -> Self {
        let reason = format!("status {status}").into();
        Self::InvalidResponse(InvalidResponse { reason, status: Some(status), source: None })
    }

    /// Whether the upstream refuses the request itself, and may accept another one for the same content.
    pub(crate) fn is_refused_request(&self) -> bool {
        match self {
            Self::InvalidResponse(InvalidResponse { status, .. }) => {
                status.is_some_and(|status| (400..500).contains(&status))
            }
            _ => false,
        }
    }

    /// [`Unreachable`](Self::Unreachable) without an underlying error.
    pub fn unreachable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unreachable(Unreachable { reason: reason.into(), source: None })
    }

    /// This error with the underlying one, where its variant can have one.
    pub fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        let source: Option<Source> = Some(Arc::new(source));
        match self {
            Self::InvalidResponse(InvalidResponse { reason, status, .. }) => {
                Self::InvalidResponse(InvalidResponse { reason, status, source })
            }
            Self::Unreachable(Unreachable { reason, .. }) => {
                Self::Unreachable(Unreachable { reason, source })
            }
            other => other,
        }
    }
}

impl UpstreamError {
    /// The cause for a client, where the class of the failure does not say it. It names hosts, and nothing else of this
    /// process or its configuration.
    pub fn public_reason(&self) -> Option<String> {
        match self {
            Self::LoginRefused { .. }
            | Self::LoginRequired
            | Self::Server { .. }
            | Self::InvalidResponse(_)
            | Self::DigestMismatch
            | Self::TooLarge
            | Self::ProxyRefused { .. }
            | Self::Unreachable(_) => Some(self.to_string()),
            Self::LoginUnreadable { .. } => Some("failed to read the configured login".to_owned()),
            Self::NotFound
            | Self::Denied
            | Self::RateLimited { .. }
            | Self::RangeNotSatisfiable
            | Self::Timeout
            | Self::CircuitOpen { .. }
            | Self::Busy
            | Self::Offline => None,
        }
    }

    /// Whether the error concerns requests to the upstream in general: the network, the upstream's protocol, or settings.
    pub(crate) fn is_of_upstream(&self) -> bool {
        match self {
            Self::LoginRefused { .. }
            | Self::LoginRequired
            | Self::LoginUnreadable { .. }
            | Self::Server { .. }
            | Self::InvalidResponse(_)
            | Self::Timeout
            | Self::ProxyRefused { .. }
            | Self::Unreachable(_) => true,
            Self::NotFound
            | Self::Denied
            | Self::RateLimited { .. }
            | Self::DigestMismatch
            | Self::TooLarge
            | Self::RangeNotSatisfiable
            | Self::CircuitOpen { .. }
            | Self::Busy
            | Self::Offline => false,
        }
    }
}

impl From<Open> for UpstreamError {
    fn from(open: Open) -> Self {
        Self::CircuitOpen { retry_after: open.retry_after }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_states_its_cause_and_keeps_its_source() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for (error, text) in [
            (UpstreamError::invalid_response("status 418"), "invalid response from upstream: status 418"),
            (UpstreamError::unreachable("host: reset"), "failed to reach upstream: host: reset"),
        ] {
            assert!(error.source().is_none());
            let error = error.with_source(reset());
            assert_eq!(error.to_string(), text);
            let copy = error.clone();
            assert_eq!(copy.source().map(ToString::to_string), Some(reset().to_string()));
            assert_eq!(copy, error);
        }
        assert!(UpstreamError::Timeout.with_source(reset()).source().is_none());
        assert_ne!(UpstreamError::unreachable("a"), UpstreamError::unreachable("b"));
    }
}
