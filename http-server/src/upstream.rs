//! The answer to a client when an upstream registry did not deliver: the one table for both services.

use std::time::Duration;

use actix_web::http::StatusCode;
use oci_types::UpstreamFailure;

use crate::{OciCode, OciError};

/// `Retry-After` of a temporary failure whose end is not known.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a request is for. Chooses the code and the text of a 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// A repository: its tags or referrers.
    Repository,
}

impl OciError {
    /// The answer to a request for a `resource` that an upstream did not deliver. `reason` replaces the text of a refusal or
    /// an invalid answer.
    pub fn upstream(resource: Resource, failure: UpstreamFailure, reason: Option<&str>) -> Self {
        match failure {
            UpstreamFailure::NotFound => match resource {
                Resource::Manifest => Self::new(OciCode::ManifestUnknown, "upstream has no such manifest"),
                Resource::Blob => Self::new(OciCode::BlobUnknown, "upstream has no such blob"),
                Resource::Repository => Self::new(OciCode::NameUnknown, "upstream has no such repository"),
            },
            UpstreamFailure::Denied => {
                let usual = "upstream denied access: the content may not exist, or may require a login";
                Self::new(OciCode::Denied, reason.unwrap_or(usual))
            }
            UpstreamFailure::RateLimited { retry_after } => {
                Self::new(OciCode::TooManyRequests, "upstream rate limit reached")
                    .with_retry_after(retry_after.map(|after| after.as_secs()))
            }
            UpstreamFailure::Unsupported => {
                let code = match resource {
                    Resource::Manifest => OciCode::ManifestInvalid,
                    Resource::Blob | Resource::Repository => OciCode::Unsupported,
                };
                Self::new(code, reason.unwrap_or("the content at upstream is not supported"))
                    .with_status(StatusCode::BAD_REQUEST)
            }
            UpstreamFailure::BadGateway => Self::new(OciCode::Unknown, reason.unwrap_or("upstream failed"))
                .with_status(StatusCode::BAD_GATEWAY)
                .of_upstream(),
            UpstreamFailure::Timeout => Self::new(OciCode::Unavailable, "upstream did not answer in time")
                .with_status(StatusCode::GATEWAY_TIMEOUT)
                .of_upstream(),
            UpstreamFailure::Unavailable { retry_after } => {
                Self::unavailable("upstream is temporarily unavailable", retry_after).of_upstream()
            }
        }
    }

    /// 503 with `Retry-After`: `retry_after`, or [`DEFAULT_RETRY_AFTER`] where no time is known.
    pub fn unavailable(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        let seconds = retry_after.unwrap_or(DEFAULT_RETRY_AFTER).as_secs();
        Self::new(OciCode::Unavailable, message).with_retry_after(Some(seconds))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn each_failure_has_one_status_and_one_retry_after() {
        let after = |seconds| Some(Duration::from_secs(seconds));
        for (failure, status, retry_after) in [
            (UpstreamFailure::NotFound, 404, None),
            (UpstreamFailure::Denied, 403, None),
            (UpstreamFailure::RateLimited { retry_after: None }, 429, None),
            (UpstreamFailure::RateLimited { retry_after: after(60) }, 429, Some("60")),
            (UpstreamFailure::Unsupported, 400, None),
            (UpstreamFailure::BadGateway, 502, None),
            (UpstreamFailure::Timeout, 504, None),
            (UpstreamFailure::Unavailable { retry_after: None }, 503, Some("5")),
            (UpstreamFailure::Unavailable { retry_after: after(0) }, 503, Some("1")),
            (UpstreamFailure::Unavailable { retry_after: after(7) }, 503, Some("7")),
        ] {
            let response = OciError::upstream(Resource::Blob, failure, None).response();
            assert_eq!(response.status().as_u16(), status, "{failure:?}");
            let sent = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(sent, retry_after, "{failure:?}");
        }
    }

    #[actix_web::test]
    async fn the_reason_is_in_the_answer_where_the_class_does_not_say_it() {
        for (failure, shown) in [
            (UpstreamFailure::NotFound, false),
            (UpstreamFailure::Denied, true),
            (UpstreamFailure::Unsupported, true),
            (UpstreamFailure::BadGateway, true),
            (UpstreamFailure::Timeout, false),
        ] {
            let response = OciError::upstream(Resource::Blob, failure, Some("the reason")).response();
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&body).contains("the reason"), shown, "{failure:?}");
        }
    }
}
