//! The class of an [`UpstreamError`] that a client can act on.

use oci_types::UpstreamFailure;

use crate::UpstreamError;

impl From<&UpstreamError> for UpstreamFailure {
    fn from(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::NotFound => Self::NotFound,
            UpstreamError::Denied | UpstreamError::LoginRefused { .. } | UpstreamError::LoginRequired => {
                Self::Denied
            }
            UpstreamError::RateLimited { retry_after } => Self::RateLimited { retry_after: *retry_after },
            UpstreamError::TooLarge => Self::Unsupported,
            UpstreamError::Timeout => Self::Timeout,
            UpstreamError::Busy => Self::Unavailable { retry_after: None },
            UpstreamError::CircuitOpen { retry_after } => {
                Self::Unavailable { retry_after: Some(*retry_after) }
            }
            UpstreamError::Offline => Self::Unavailable { retry_after: None },
            UpstreamError::Server { .. }
            | UpstreamError::InvalidResponse(_)
            | UpstreamError::DigestMismatch
            | UpstreamError::RangeNotSatisfiable
            | UpstreamError::LoginUnreadable { .. }
            | UpstreamError::ProxyRefused { .. }
            | UpstreamError::Unreachable(_) => Self::BadGateway,
        }
    }
}
