//! What a client of a content node is told: one line of JSON, and nothing of ours in it.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use http_server::{OciCode, OciError};
use shared_models::db::DbError;
use upstream_client::UpstreamError;

use crate::fills::FillError;

/// Why a blob is not served.
#[derive(Debug)]
pub(crate) enum ContentError {
    /// The link is missing, altered, expired, or for something else. Which of these is not told.
    BadLink,
    /// The digest of a path of the internal API is none.
    BadDigest,
    /// The blob is neither filled nor stored on this node.
    NotHere,
    /// The fill ended without the blob.
    Fill(FillError),
    /// The store could not be read.
    Store(blob_store::StoreError),
    /// The database did not answer.
    Database(DbError),
}

impl From<FillError> for ContentError {
    fn from(error: FillError) -> Self {
        Self::Fill(error)
    }
}

impl From<blob_store::StoreError> for ContentError {
    fn from(error: blob_store::StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<DbError> for ContentError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for ContentError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLink => out.write_str("the link is not valid"),
            Self::BadDigest => out.write_str("this is not a digest"),
            Self::NotHere => out.write_str("the blob is neither filled nor stored here"),
            Self::Fill(error) => error.fmt(out),
            Self::Store(error) => error.fmt(out),
            Self::Database(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for ContentError {}

impl ResponseError for ContentError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::BadLink => OciError::new(OciCode::Denied, "the link is not valid").response(),
            Self::BadDigest => OciError::new(OciCode::DigestInvalid, "this is not a digest").response(),
            Self::NotHere => {
                OciError::new(OciCode::BlobUnknown, "the blob is neither filled nor stored here").response()
            }
            Self::Fill(error) => for_fill(error).response(),
            Self::Store(error) => {
                tracing::error!("the storage failed: {error}");
                OciError::new(OciCode::Unknown, "the storage failed").response()
            }
            Self::Database(_) => unavailable("the database is not available").response(),
        }
    }
}

fn unavailable(message: &str) -> OciError {
    const RETRY_AFTER_SECONDS: u64 = 5;
    OciError::new(OciCode::Unavailable, message).with_retry_after(Some(RETRY_AFTER_SECONDS))
}

fn for_fill(error: &FillError) -> OciError {
    let bad_gateway =
        |message: &str| OciError::new(OciCode::Unknown, message).with_status(StatusCode::BAD_GATEWAY);
    let seconds = error.retry_after().map(|after| after.as_secs());
    match error {
        FillError::NoSource => OciError::new(OciCode::BlobUnknown, "no upstream is known to have this blob"),
        FillError::Unconfigured => unavailable("no upstream that has this blob is configured here"),
        FillError::Upstream(UpstreamError::NotFound) => {
            OciError::new(OciCode::BlobUnknown, "upstream no longer has this blob")
        }
        FillError::Upstream(UpstreamError::Denied) => {
            OciError::new(OciCode::Denied, "upstream refused: the blob may not exist or needs credentials")
        }
        FillError::Upstream(UpstreamError::RateLimited { .. }) => {
            OciError::new(OciCode::TooManyRequests, "upstream's request limit is used up")
                .with_retry_after(seconds)
        }
        FillError::Upstream(UpstreamError::Timeout) => {
            OciError::new(OciCode::Unavailable, "upstream did not answer in time")
                .with_status(StatusCode::GATEWAY_TIMEOUT)
        }
        FillError::Upstream(UpstreamError::CircuitOpen { .. } | UpstreamError::Offline) => {
            OciError::new(OciCode::Unavailable, "upstream is not asked at present")
                .with_retry_after(seconds.or(Some(10)))
        }
        FillError::Upstream(_) => bad_gateway("upstream failed"),
        FillError::WrongSize => bad_gateway("upstream sent a blob of another size"),
        FillError::WrongDigest => bad_gateway("upstream sent bytes that do not match the digest"),
        FillError::Storage(_) => OciError::new(OciCode::Unknown, "the storage failed"),
        FillError::NoSpace => {
            unavailable("there is no space left for this blob").with_status(StatusCode::INSUFFICIENT_STORAGE)
        }
        FillError::Database => unavailable("the database is not available"),
        FillError::Away => unavailable("the blob is stored, and the storage is away"),
        FillError::AlreadyStored => unavailable("the blob was stored meanwhile"),
        FillError::Stopped => unavailable("the node is going down"),
    }
}
