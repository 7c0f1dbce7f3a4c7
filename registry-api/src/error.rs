//! The errors of this service and the answer to each: the only mapping to HTTP in this crate.

use std::sync::Arc;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use http_server::{OciCode, OciError, Resource};
use oci_types::{MediaType, UpstreamFailure, manifest::ManifestError, name::NameError};
use shared_models::db::DbError;
use upstream_client::UpstreamError;

use crate::cache_status::failure_code;

/// Why a request is not answered with the content that it is for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// A repository name, tag or digest outside its grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No upstream has the host in `?ns=`, or no namespace matches the name.
    #[error("no namespace matches this repository name")]
    UnknownRepository,
    /// A rule of the namespace excludes the repository.
    #[error("this repository is excluded by the rule: {rule}")]
    Excluded {
        /// The rule, as configured.
        rule: String,
    },
    /// The principal may not perform the action.
    #[error("access denied")]
    #[cfg_attr(not(test), expect(dead_code, reason = "every action is allowed until access control exists"))]
    Forbidden,
    /// The upstream did not deliver the content, and it is not present.
    #[error("the upstream did not deliver the content (code {})", failure_code(*.failure))]
    Upstream {
        /// What the request is for.
        resource: Resource,
        /// Why not.
        failure: UpstreamFailure,
        /// Whether the answer is from the negative cache.
        cached: bool,
        /// The cause, where the class of the failure does not say it.
        reason: Option<Arc<str>>,
    },
    /// `Accept` excludes the type of the manifest with `q=0`.
    #[error("the manifest has the type {0}, which the Accept header excludes")]
    NotAcceptable(MediaType),
    /// `n` or `last` of a listing is invalid.
    #[error("{0}")]
    Page(&'static str),
    /// There is no live content node.
    #[error("no content node is available")]
    NoContentNode,
    /// The database is unavailable.
    #[error("the database is unavailable")]
    DatabaseUnavailable(#[source] DbError),
    /// A query failed, which is a defect.
    #[error("a database query failed")]
    Database(#[source] DbError),
    /// A tag or repository names a manifest whose bytes are not in the database.
    #[error("the bytes of a recorded manifest are missing")]
    MissingManifest,
    /// The work that this request waited for panicked.
    #[error("the work that this request waited for panicked")]
    Panicked,
}

/// Why an upstream did not deliver: what decisions depend on, and the cause for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: UpstreamFailure,
    /// The cause, where the class does not say it.
    pub(crate) reason: Option<Arc<str>>,
}

impl Failure {
    /// The failure of this class: `observed`, if it is of the class.
    pub(crate) fn of(class: UpstreamFailure, observed: Option<Self>) -> Self {
        observed.filter(|failure| failure.class == class).unwrap_or(Self { class, reason: None })
    }

    /// Whether it concerns the content: the upstream answered, and would answer the same again.
    pub(crate) fn is_refusal(&self) -> bool {
        match self.class {
            UpstreamFailure::NotFound | UpstreamFailure::Denied | UpstreamFailure::Unsupported => true,
            UpstreamFailure::RateLimited { .. }
            | UpstreamFailure::BadGateway
            | UpstreamFailure::Timeout
            | UpstreamFailure::Unavailable { .. } => false,
        }
    }
}

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Self {
        Self { class: error.into(), reason: error.public_reason().map(Arc::from) }
    }
}

impl From<&ManifestError> for Failure {
    fn from(error: &ManifestError) -> Self {
        let class = match error.is_unsupported() {
            true => UpstreamFailure::Unsupported,
            false => UpstreamFailure::BadGateway,
        };
        Self { class, reason: Some(error.to_string().into()) }
    }
}

impl From<UpstreamFailure> for Failure {
    fn from(class: UpstreamFailure) -> Self {
        Self { class, reason: None }
    }
}

impl ApiError {
    /// An upstream failure that was observed now.
    pub(crate) fn upstream(resource: Resource, failure: Failure) -> Self {
        let Failure { class, reason } = failure;
        Self::Upstream { resource, failure: class, cached: false, reason }
    }

    /// A refusal of the upstream from the negative cache.
    pub(crate) fn known(resource: Resource, failure: Failure) -> Self {
        let Failure { class, reason } = failure;
        Self::Upstream { resource, failure: class, cached: true, reason }
    }

    /// The failure of the upstream.
    ///
    /// # Errors
    /// This error, if it is another one.
    pub(crate) fn into_failure(self) -> Result<Failure, Self> {
        match self {
            Self::Upstream { failure, reason, .. } => Ok(Failure { class: failure, reason }),
            error => Err(error),
        }
    }

    /// The value of the label `outcome` of `tidegate_pulls_total`.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Upstream { cached: true, .. } => "negative",
            _ => "error",
        }
    }

    fn to_oci_error(&self) -> OciError {
        let message = || self.to_string();
        match self {
            Self::Name(error) => OciError::new(name_code(error), message()),
            Self::UnknownRepository => OciError::new(OciCode::NameUnknown, message()),
            Self::Excluded { .. } | Self::Forbidden => OciError::new(OciCode::Denied, message()),
            Self::Upstream { resource, failure, reason, .. } => {
                OciError::upstream(*resource, *failure, reason.as_deref())
            }
            Self::NotAcceptable(_) => {
                OciError::new(OciCode::Unsupported, message()).with_status(StatusCode::NOT_ACCEPTABLE)
            }
            Self::Page(_) => OciError::new(OciCode::PaginationNumberInvalid, message()),
            Self::NoContentNode | Self::DatabaseUnavailable(_) => OciError::unavailable(message(), None),
            Self::Database(_) | Self::MissingManifest | Self::Panicked => {
                OciError::new(OciCode::Unknown, "internal error")
            }
        }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            // The database handle logs when it becomes unavailable.
            DbError::Unavailable(_) => Self::DatabaseUnavailable(error),
            _ => {
                tracing::error!(%error, "failed to query the database");
                Self::Database(error)
            }
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.to_oci_error().response()
    }
}

fn name_code(error: &NameError) -> OciCode {
    match error {
        NameError::NameTooLong | NameError::Name => OciCode::NameInvalid,
        NameError::Tag => OciCode::TagInvalid,
        NameError::Digest(_) => OciCode::DigestInvalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_one_status() {
        let unavailable = DbError::unavailable("reason".to_owned());
        for (error, status, message) in [
            (ApiError::UnknownRepository, 404, "no namespace matches this repository name"),
            (ApiError::Forbidden, 403, "access denied"),
            (
                ApiError::known(Resource::Blob, UpstreamFailure::NotFound.into()),
                404,
                "the upstream did not deliver the content (code 404)",
            ),
            (ApiError::NoContentNode, 503, "no content node is available"),
            (ApiError::from(unavailable), 503, "the database is unavailable"),
            (ApiError::Panicked, 500, "the work that this request waited for panicked"),
            (
                ApiError::NotAcceptable(MediaType::new("a/b")),
                406,
                "the manifest has the type a/b, which the Accept header excludes",
            ),
        ] {
            assert_eq!(error.status_code().as_u16(), status, "{error:?}");
            assert_eq!(error.to_string(), message);
        }
    }
}
