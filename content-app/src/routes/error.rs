//! The errors of requests, and the answer to each. No other file maps an error to an answer.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use blob_store::StoreError;
use http_server::{OciCode, OciError, Resource};
use internal_api::SignatureError;
use shared_models::db::DbError;

use crate::error::FillError;

/// Why a request fails. The log has the source; the answer has no path, SQL or host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// The content link or the signature of the request is missing, altered or expired, which the answer does not say, or is
    /// of an unknown key.
    #[error("the link is not valid")]
    InvalidSignature(#[from] SignatureError),
    /// The path has no valid digest.
    #[error("the digest is not valid")]
    InvalidDigest,
    /// The query has no valid parameters.
    #[error("the query is not valid")]
    InvalidQuery,
    /// The blob is neither filled nor stored on this node.
    #[error("the blob is neither filled nor stored here")]
    NotHere,
    /// The fill ended without the blob.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The storage failed.
    #[error("the storage failed")]
    Store(#[from] StoreError),
    /// The database failed.
    #[error("the database is unavailable")]
    Database(#[from] DbError),
}

impl ResponseError for ContentError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.to_oci_error().response()
    }
}

impl ContentError {
    fn to_oci_error(&self) -> OciError {
        match self {
            Self::InvalidSignature(SignatureError::Invalid) => {
                OciError::new(OciCode::Denied, "the link is not valid")
            }
            Self::InvalidSignature(SignatureError::UnknownKey { .. }) => OciError::new(
                OciCode::Denied,
                "the link was signed by a process with other link keys than this one",
            ),
            Self::InvalidDigest => OciError::new(OciCode::DigestInvalid, "the digest is not valid"),
            Self::InvalidQuery => OciError::new(OciCode::Unsupported, "the query is not valid")
                .with_status(StatusCode::BAD_REQUEST),
            Self::NotHere => {
                OciError::new(OciCode::BlobUnknown, "the blob is neither filled nor stored here")
            }
            Self::Fill(error) => of_fill(error),
            Self::Store(error) => {
                tracing::error!(%error, "failed to read a stored blob");
                OciError::new(OciCode::Unknown, "the storage failed")
            }
            Self::Database(error) => {
                tracing::warn!(%error, "failed to query the database for a request");
                OciError::unavailable("the database is not available", None)
            }
        }
    }
}

fn of_fill(error: &FillError) -> OciError {
    let bad_gateway =
        |message: &str| OciError::new(OciCode::Unknown, message).with_status(StatusCode::BAD_GATEWAY);
    let unavailable = |message: &str| OciError::unavailable(message, None);
    match error {
        FillError::NoSource => OciError::new(OciCode::BlobUnknown, "no upstream is known to have this blob"),
        FillError::Unconfigured => unavailable("no upstream that has this blob is configured here"),
        FillError::Upstream(error) => {
            OciError::upstream(Resource::Blob, error.into(), error.public_reason().as_deref())
        }
        FillError::WrongSize => bad_gateway("upstream sent a blob of another size"),
        FillError::WrongDigest => bad_gateway("upstream sent bytes that do not match the digest"),
        FillError::Storage(_) => OciError::new(OciCode::Unknown, "the storage failed"),
        FillError::NoSpace => {
            unavailable("there is no space left for this blob").with_status(StatusCode::INSUFFICIENT_STORAGE)
        }
        FillError::Disk(_) => unavailable("the blob cannot be stored, and its size is not known"),
        FillError::Database(_) => unavailable("the database is not available"),
        FillError::StorageUnavailable => unavailable("the storage of this blob is unavailable"),
        FillError::ClientWait => unavailable("the blob is being downloaded, and did not arrive in time"),
        FillError::AlreadyStored => unavailable("the blob was stored meanwhile"),
        FillError::Stopped => unavailable("the node is stopping"),
    }
}
