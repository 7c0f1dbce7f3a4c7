//! Every error of this service and the OCI code and status that a client gets for it. The only place where that is said.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use http_server::{OciCode, OciError};
use oci_types::name::NameError;
use shared_models::db::DbError;

use crate::pull::decide::{Failure, Refusal};

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Manifest,
    Blob,
    Repository,
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone)]
pub(crate) enum ApiError {
    /// A repository name, tag or digest outside its grammar.
    Name(NameError),
    /// `?ns=` names a registry that no upstream here stands for, or no namespace takes the name.
    UnknownRepository,
    /// A rule of the namespace keeps the repository out.
    Excluded { rule: String },
    /// Upstream did not give it, and it is not here.
    Refused { asked: Asked, refusal: Refusal, negative: bool },
    /// The client listed the type of the manifest with `q=0`.
    NotAcceptable,
    /// `n` or `last` of a listing makes no sense.
    Page(&'static str),
    /// No content node lives.
    NoContentNode,
    /// The database did not answer, and will.
    DatabaseUnavailable,
    /// A defect; the log says which.
    Internal,
}

impl ApiError {
    /// The outcome to count a failed pull under.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Refused { negative: true, .. } => "negative",
            _ => "error",
        }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) => Self::DatabaseUnavailable,
            defect => {
                tracing::error!("a query failed: {defect}");
                Self::Internal
            }
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.told().response()
    }
}

/// When to come back, where nothing better is known, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

impl ApiError {
    fn told(&self) -> OciError {
        match self {
            Self::Name(error) => OciError::new(name_code(error), error.to_string()),
            Self::UnknownRepository => OciError::new(
                OciCode::NameUnknown,
                "this name leads to no upstream registry that is configured here",
            ),
            Self::Excluded { rule } => {
                OciError::new(OciCode::Denied, format!("the repository is kept out here by the rule: {rule}"))
            }
            Self::Refused { asked, refusal, .. } => refused(*asked, *refusal),
            Self::NotAcceptable => {
                OciError::new(OciCode::ManifestUnknown, "the client does not accept the manifest's type")
                    .with_status(StatusCode::NOT_ACCEPTABLE)
            }
            Self::Page(reason) => OciError::new(OciCode::PaginationNumberInvalid, *reason),
            Self::NoContentNode => OciError::new(OciCode::Unavailable, "no content node is available")
                .with_retry_after(Some(RETRY_AFTER_SECONDS)),
            Self::DatabaseUnavailable => OciError::new(OciCode::Unavailable, "the database is not available")
                .with_retry_after(Some(RETRY_AFTER_SECONDS)),
            Self::Internal => OciError::new(OciCode::Unknown, "internal error"),
        }
    }
}

fn name_code(error: &NameError) -> OciCode {
    match error {
        NameError::NameTooLong | NameError::Name => OciCode::NameInvalid,
        NameError::Tag => OciCode::TagInvalid,
        NameError::Digest(_) => OciCode::DigestInvalid,
    }
}

fn refused(asked: Asked, refusal: Refusal) -> OciError {
    match refusal {
        Failure::NotFound => match asked {
            Asked::Manifest => OciError::new(OciCode::ManifestUnknown, "upstream has no such manifest"),
            Asked::Blob => OciError::new(OciCode::BlobUnknown, "upstream has no such blob"),
            Asked::Repository => OciError::new(OciCode::NameUnknown, "upstream has no such repository"),
        },
        Failure::Denied => {
            OciError::new(OciCode::Denied, "upstream refused: it may not exist or needs credentials")
        }
        Failure::RateLimited { retry_after } => {
            OciError::new(OciCode::TooManyRequests, "upstream's request limit is used up")
                .with_retry_after(retry_after.map(|after| after.as_secs()))
        }
        Failure::Bad => {
            OciError::new(OciCode::Unknown, "upstream failed").with_status(StatusCode::BAD_GATEWAY)
        }
        Failure::Timeout => OciError::new(OciCode::Unavailable, "upstream did not answer in time")
            .with_status(StatusCode::GATEWAY_TIMEOUT),
        Failure::Unavailable { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |after| after.as_secs());
            OciError::new(OciCode::Unavailable, "upstream is not asked at present")
                .with_retry_after(Some(seconds))
        }
    }
}
