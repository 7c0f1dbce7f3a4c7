//! What an upstream's error means for a decision.

use upstream_client::UpstreamError;

use super::decide::Failure;

/// Sorts what the upstream client reports into what the tables know.
pub(crate) fn failure(error: &UpstreamError) -> Failure {
    match error {
        UpstreamError::NotFound => Failure::NotFound,
        UpstreamError::Denied => Failure::Denied,
        UpstreamError::RateLimited { retry_after } => Failure::RateLimited { retry_after: *retry_after },
        UpstreamError::Timeout => Failure::Timeout,
        UpstreamError::CircuitOpen { retry_after } => {
            Failure::Unavailable { retry_after: Some(*retry_after) }
        }
        UpstreamError::Offline => Failure::Unavailable { retry_after: None },
        UpstreamError::Server { .. }
        | UpstreamError::InvalidResponse(_)
        | UpstreamError::DigestMismatch
        | UpstreamError::TooLarge
        | UpstreamError::RangeNotSatisfiable
        | UpstreamError::Unreachable(_) => Failure::Bad,
    }
}

/// The name of a failure in `Cache-Status` and in logs.
pub(crate) fn name(failure: Failure) -> &'static str {
    match failure {
        Failure::NotFound => "404",
        Failure::Denied => "403",
        Failure::RateLimited { .. } => "429",
        Failure::Bad => "502",
        Failure::Timeout => "504",
        Failure::Unavailable { .. } => "503",
    }
}
