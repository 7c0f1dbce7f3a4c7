//! `Cache-Status` (RFC 9211) and the outcome that is counted with it.

use std::{fmt, time::Duration};

use actix_web::http::header::HeaderValue;

use crate::pull::{decide::Failure, failure};

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// From here, without a word to upstream.
    Hit {
        /// How much longer the tag counts as fresh; `None` for what never goes stale.
        ttl: Option<Duration>,
    },
    /// From here, after upstream confirmed it.
    Revalidated,
    /// From here, although upstream could not confirm it.
    Stale {
        /// Why it could not.
        failure: Failure,
        /// How long ago the tag stopped being fresh.
        since: Duration,
    },
    /// The tag is new or has moved to what was here already.
    Adopted,
    /// Fetched, and stored.
    Miss,
    /// Fetched by another request that this one joined.
    Collapsed,
    /// Told from upstream's `HEAD`, or sent on to where the bytes will be.
    Forwarded,
}

impl Outcome {
    /// The value of the `outcome` label of `tidegate_pulls_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Revalidated => "revalidated",
            Self::Stale { .. } => "stale",
            Self::Miss | Self::Adopted | Self::Forwarded => "miss",
            Self::Collapsed => "collapsed",
        }
    }

    /// The value of `Cache-Status`.
    pub(crate) fn header(self) -> HeaderValue {
        const HIT: HeaderValue = HeaderValue::from_static("tidegate; hit");
        match self {
            Self::Hit { ttl: None } => HIT,
            // All that is written below is visible ASCII.
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
                write!(
                    out,
                    "tidegate; hit; ttl=-{}; detail=stale-upstream-{}",
                    since.as_secs(),
                    failure::name(*failure)
                )
            }
            Self::Adopted => out.write_str("tidegate; fwd=miss; fwd-status=200; detail=known-content"),
            Self::Miss => out.write_str("tidegate; fwd=miss; stored"),
            Self::Collapsed => out.write_str("tidegate; fwd=miss; stored; collapsed"),
            Self::Forwarded => out.write_str("tidegate; fwd=miss"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_reads_as_the_rfc_says() {
        let stale = Outcome::Stale {
            failure: Failure::RateLimited { retry_after: None },
            since: Duration::from_secs(42),
        };
        assert_eq!(stale.to_string(), "tidegate; hit; ttl=-42; detail=stale-upstream-429");
        assert_eq!(Outcome::Hit { ttl: Some(Duration::from_secs(59)) }.to_string(), "tidegate; hit; ttl=59");
        assert_eq!(Outcome::Hit { ttl: None }.header(), "tidegate; hit");
        assert_eq!(stale.header(), "tidegate; hit; ttl=-42; detail=stale-upstream-429");
        assert_eq!(Outcome::Collapsed.to_string(), "tidegate; fwd=miss; stored; collapsed");
    }
}
