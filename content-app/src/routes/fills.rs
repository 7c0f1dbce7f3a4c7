//! `GET /internal/v1/fills`, `POST /internal/v1/fills/{digest}`: the fills of this node, for registry-api and operators.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use internal_api::{FillState, FillStatus};
use oci_types::Digest;
use serde::Deserialize;
use tokio::time::Instant;

use super::{blobs::MAX_JOIN_ATTEMPTS, content::Content, error::ContentError};
use crate::{
    error::FillError,
    fills::{Fill, Phase},
    request::Verified,
};

/// The maximum time that a request waits for the end of a fill.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// `?wait=SECONDS`: answer when the fill has ended, or after this time.
#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    wait: u64,
}

/// `GET /internal/v1/fills`: the running fills.
pub(super) fn list(_: &Verified, content: &Content) -> HttpResponse {
    let fills: Vec<_> = content.fills.list().iter().map(|fill| status(fill)).collect();
    HttpResponse::Ok().json(fills)
}

/// `POST /internal/v1/fills/{digest}`: joins or starts the fill, which then continues without readers. 200 when the blob is
/// stored or the fill has failed, 202 while it runs.
pub(super) async fn start(
    verified: &Verified,
    request: &HttpRequest,
    content: &Content,
) -> Result<HttpResponse, ContentError> {
    let digest = verified.digest().ok_or(ContentError::InvalidDigest)?.clone();
    let parameters = web::Query::<Parameters>::from_query(request.query_string());
    let wait = parameters.map_err(|_| ContentError::InvalidQuery)?.wait;
    if let Some(blob) = content.state.blobs.get(&digest).await? {
        return Ok(HttpResponse::Ok().json(FillStatus::stored(digest, blob.size())));
    }
    let deadline = Instant::now() + Duration::from_secs(wait).min(MAX_WAIT);
    let mut fill = join(content, &digest, deadline).await;
    for _ in 1..MAX_JOIN_ATTEMPTS {
        if !matches!(fill.snapshot().phase, Phase::Failed(FillError::Stopped)) {
            break;
        }
        fill = join(content, &digest, deadline).await;
    }
    let status = status(&fill);
    Ok(match status.state {
        FillState::Running => HttpResponse::Accepted().json(status),
        FillState::Stored | FillState::Failed => HttpResponse::Ok().json(status),
    })
}

/// Joins the fill and waits for its end, until `deadline`.
async fn join(content: &Content, digest: &Digest, deadline: Instant) -> Arc<Fill> {
    let (fill, _) = content.fills.join(digest, None, |fill| {
        fill.pin();
        Arc::clone(fill)
    });
    // A timeout is not an error: the status reports the state of the fill.
    let _ = tokio::time::timeout_at(deadline, fill.wait_until_ended()).await.is_ok();
    fill
}

fn status(fill: &Fill) -> FillStatus {
    let snapshot = fill.snapshot();
    let (state, error) = match snapshot.phase {
        Phase::Running | Phase::Verified => (FillState::Running, None),
        Phase::Stored | Phase::Failed(FillError::AlreadyStored) => (FillState::Stored, None),
        Phase::StoreFailed => (FillState::Failed, Some(FillError::storage("the blob could not be stored"))),
        Phase::Failed(error) => (FillState::Failed, Some(error)),
    };
    FillStatus {
        digest: fill.digest().clone(),
        state,
        size: snapshot.size,
        present: snapshot.present,
        readers: snapshot.readers,
        retry_after: error.as_ref().and_then(FillError::retry_after).map(|after| after.as_secs()),
        error: error.map(|error| error.to_string()),
    }
}
