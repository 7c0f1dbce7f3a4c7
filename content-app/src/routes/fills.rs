//! `GET /internal/v1/fills`, `POST /internal/v1/fills/{digest}`: for registry-api and operators, on the internal listener,
//! under a signature.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use oci_types::{Digest, Millis};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::blobs::JOIN_ATTEMPTS;
use crate::{
    Content,
    error::ContentError,
    fill::{Fill, FillError, Phase},
};

/// The header with the signature of an internal request.
pub const SIGNATURE: &str = "Tidegate-Signature";

/// The longest that an ask for a fill waits for its end.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a fill stands, as the internal API tells it.
#[derive(Debug, Serialize)]
struct FillState {
    digest: Digest,
    /// `running`, `stored` or `failed`.
    state: &'static str,
    /// In bytes, once known.
    size: Option<u64>,
    /// Bytes that are here.
    landed: u64,
    /// How many clients read it.
    readers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Seconds after which it makes sense to ask again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl FillState {
    fn of(fill: &Fill) -> Self {
        let now = fill.now();
        let (state, error) = match now.phase {
            Phase::Running | Phase::Verified => ("running", None),
            Phase::Stored | Phase::Failed(FillError::AlreadyStored) => ("stored", None),
            Phase::Unstored => ("failed", Some(FillError::Storage("not durable".to_owned()))),
            Phase::Failed(error) => ("failed", Some(error)),
        };
        Self {
            digest: fill.digest().clone(),
            state,
            size: now.size,
            landed: fill.landed(),
            readers: fill.readers(),
            retry_after: error.as_ref().and_then(FillError::retry_after).map(|after| after.as_secs()),
            error: error.map(|error| error.to_string()),
        }
    }

    fn stored(digest: Digest, size: u64) -> Self {
        let size_here = Some(size);
        Self {
            digest,
            state: "stored",
            size: size_here,
            landed: size,
            readers: 0,
            error: None,
            retry_after: None,
        }
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
    let states: Vec<_> = content.fills.all().iter().map(|fill| FillState::of(fill)).collect();
    Ok(HttpResponse::Ok().json(states))
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
        return Ok(HttpResponse::Ok().json(FillState::stored(digest, blob.size())));
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
    let state = FillState::of(fill);
    if state.state == "running" {
        HttpResponse::Accepted().json(state)
    } else {
        HttpResponse::Ok().json(state)
    }
}

/// Whoever asks has one of our keys.
pub(super) fn check(request: &HttpRequest, content: &Content) -> Result<(), ContentError> {
    let header = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    content
        .config
        .link_keys
        .verify_internal(request.method().as_str(), path, header, Millis::now())
        .map_err(|_| ContentError::BadLink)
}
