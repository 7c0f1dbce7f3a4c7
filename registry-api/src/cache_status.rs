//! `Cache-Status` (RFC 9211) and the outcome that is counted with it.

use std::{fmt, time::Duration};

use actix_web::http::header::HeaderValue;
use oci_types::UpstreamFailure;

/// How an answer was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Served from here without a request to the upstream.
    Hit {
        /// The remaining freshness lifetime of the tag; `None` for content that never becomes stale.
        ttl: Option<Duration>,
    },
    /// Served from here after the upstream confirmed it.
    Revalidated,
    /// Served from here although the upstream did not confirm it.
    Stale {
        /// Why not.
        failure: UpstreamFailure,
        /// How long the tag has been stale.
        since: Duration,
    },
    /// What the database has, in place of the list of the upstream.
    LocalList {
        /// Why the upstream did not deliver it.
        failure: UpstreamFailure,
    },
    /// Served from memory, since the database is unavailable: as it was when it was last available.
    WithoutDatabase,
    /// Confirmed or named by the upstream; the bytes were present.
    KnownContent,
    /// Fetched and stored.
    Miss,
    /// Fetched by another request, which this one joined.
    Collapsed,
    /// Answered from the upstream's `HEAD`, or redirected to where the bytes will be.
    Forwarded,
}

impl Outcome {
    /// The value of the label `outcome` of `tidegate_pulls_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Revalidated => "revalidated",
            Self::Stale { .. } | Self::LocalList { .. } | Self::WithoutDatabase => "stale",
            Self::Miss | Self::KnownContent | Self::Forwarded => "miss",
            Self::Collapsed => "collapsed",
        }
    }

    /// The value of `Cache-Status`.
    pub(crate) fn header(self) -> HeaderValue {
        const HIT: HeaderValue = HeaderValue::from_static("tidegate; hit");
        match self {
            Self::Hit { ttl: None } => HIT,
            // Every other value is visible ASCII, too.
            other => HeaderValue::try_from(other.to_string()).unwrap_or(HIT),
        }
    }
}

/// RFC 9211, section 2.2: `hit` and `fwd` exclude each other.
impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { ttl: None } => out.write_str("tidegate; hit"),
            Self::Hit { ttl: Some(ttl) } => write!(out, "tidegate; hit; ttl={}", ttl.as_secs()),
            Self::Revalidated => out.write_str("tidegate; fwd=stale; fwd-status=304"),
            Self::Stale { failure, since } => {
                let (since, code) = (since.as_secs(), failure_code(*failure));
                write!(out, "tidegate; hit; ttl=-{since}; detail=stale-upstream-{code}")
            }
            Self::LocalList { failure } => {
                write!(out, "tidegate; hit; detail=local-list-upstream-{}", failure_code(*failure))
            }
            Self::WithoutDatabase => out.write_str("tidegate; hit; detail=database-unavailable"),
            Self::KnownContent => out.write_str("tidegate; fwd=miss; fwd-status=200; detail=known-content"),
            Self::Miss => out.write_str("tidegate; fwd=miss; stored"),
            Self::Collapsed => out.write_str("tidegate; fwd=miss; stored; collapsed"),
            Self::Forwarded => out.write_str("tidegate; fwd=miss"),
        }
    }
}

/// The code of a failure in `Cache-Status` and in logs: the status that a client gets for it.
pub(crate) fn failure_code(failure: UpstreamFailure) -> u16 {
    match failure {
        UpstreamFailure::NotFound => 404,
        UpstreamFailure::Denied => 403,
        UpstreamFailure::Unsupported => 400,
        UpstreamFailure::RateLimited { .. } => 429,
        UpstreamFailure::BadGateway => 502,
        UpstreamFailure::Timeout => 504,
        UpstreamFailure::Unavailable { .. } => 503,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_of_the_rfc() {
        let stale = Outcome::Stale {
            failure: UpstreamFailure::RateLimited { retry_after: None },
            since: Duration::from_secs(42),
        };
        for (outcome, value) in [
            (Outcome::Hit { ttl: None }, "tidegate; hit"),
            (Outcome::Hit { ttl: Some(Duration::from_secs(59)) }, "tidegate; hit; ttl=59"),
            (Outcome::Revalidated, "tidegate; fwd=stale; fwd-status=304"),
            (stale, "tidegate; hit; ttl=-42; detail=stale-upstream-429"),
            (
                Outcome::LocalList { failure: UpstreamFailure::Timeout },
                "tidegate; hit; detail=local-list-upstream-504",
            ),
            (Outcome::KnownContent, "tidegate; fwd=miss; fwd-status=200; detail=known-content"),
            (Outcome::Miss, "tidegate; fwd=miss; stored"),
            (Outcome::Collapsed, "tidegate; fwd=miss; stored; collapsed"),
            (Outcome::Forwarded, "tidegate; fwd=miss"),
        ] {
            assert_eq!(outcome.to_string(), value);
            assert_eq!(outcome.header(), value);
        }
    }
}
