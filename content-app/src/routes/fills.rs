//! `GET /internal/v1/fills`, `POST /internal/v1/fills/{digest}`: for registry-api and operators, on the internal listener,
//! under a signature.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use internal_api::{FillState, FillStatus, signed_request::SIGNATURE_HEADER};
use oci_types::{Digest, Millis};
use serde::Deserialize;
use tokio::time::Instant;

use super::blobs::JOIN_ATTEMPTS;
use crate::{
    Content,
    error::ContentError,
    fills::{Fill, FillError, Phase},
};

/// The longest that an ask for a fill waits for its end.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

fn status(fill: &Fill) -> FillStatus {
    let now = fill.now();
    let (state, error) = match now.phase {
        Phase::Running | Phase::Verified => (FillState::Running, None),
        Phase::Stored | Phase::Failed(FillError::AlreadyStored) => (FillState::Stored, None),
        Phase::Unstored => (FillState::Failed, Some(FillError::Storage("not durable".to_owned()))),
        Phase::Failed(error) => (FillState::Failed, Some(error)),
    };
    FillStatus {
        digest: fill.digest().clone(),
        state,
        size: now.size,
        present: fill.landed(),
        readers: fill.readers(),
        retry_after: error.as_ref().and_then(FillError::retry_after).map(|after| after.as_secs()),
        error: error.map(|error| error.to_string()),
    }
}

/// `?wait=SECONDS`: answer when the fill has ended, or after so long.
#[derive(Deserialize)]
pub(crate) struct Wait {
    #[serde(default)]
    wait: u64,
}

/// `GET /internal/v1/fills`: all that run.
pub(crate) async fn list(
    request: HttpRequest,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    check(&request, &content)?;
    let fills: Vec<_> = content.fills.all().iter().map(|fill| status(fill)).collect();
    Ok(HttpResponse::Ok().json(fills))
}

/// `POST /internal/v1/fills/{digest}`: starts or joins the fill; 200 when the blob is stored or the fill has failed, 202
/// while it runs. A fill that was asked for here goes on to its end.
pub(crate) async fn start(
    request: HttpRequest,
    path: web::Path<String>,
    wait: web::Query<Wait>,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    check(&request, &content)?;
    let digest = Digest::parse(&path.into_inner()).map_err(|_| ContentError::BadDigest)?;
    if let Some(blob) = content.fills.context.open.get(&digest).await? {
        return Ok(HttpResponse::Ok().json(FillStatus::stored(digest, blob.size())));
    }
    let limit = Instant::now() + Duration::from_secs(wait.wait).min(LONGEST_WAIT);
    for _ in 1..JOIN_ATTEMPTS {
        let fill = join(&content, &digest, limit).await;
        if !matches!(fill.now().phase, Phase::Failed(FillError::Stopped)) {
            return Ok(answer(&fill));
        }
    }
    Ok(answer(&*join(&content, &digest, limit).await))
}

/// Waits for the end of the fill, or until `limit`.
async fn join(content: &Content, digest: &Digest, limit: Instant) -> Arc<Fill> {
    let (fill, _) = content.fills.join(digest, |fill| {
        fill.keep();
        Arc::clone(fill)
    });
    let mut progress = fill.subscribe();
    let ended = progress.wait_for(|now| !matches!(now.phase, Phase::Running | Phase::Verified));
    // Running out of time is an answer too: the state says where the fill stands.
    let _ = tokio::time::timeout_at(limit, ended).await.is_ok();
    fill
}

fn answer(fill: &Fill) -> HttpResponse {
    let status = status(fill);
    match status.state {
        FillState::Running => HttpResponse::Accepted().json(status),
        FillState::Stored | FillState::Failed => HttpResponse::Ok().json(status),
    }
}

/// Whoever asks has one of our keys.
pub(super) fn check(request: &HttpRequest, content: &Content) -> Result<(), ContentError> {
    let header =
        request.headers().get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    content
        .config
        .link_keys
        .verify_request(request.method().as_str(), path, header, Millis::now())
        .map_err(|_| ContentError::BadLink)
}
