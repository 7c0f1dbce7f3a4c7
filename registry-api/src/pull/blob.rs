//! A blob: local copy, `HEAD`, record, answer. content-app or the object store sends the bytes.

use std::sync::Arc;

use http_server::Resource;
use oci_types::{Digest, UpstreamFailure, constant_blobs};
use shared_models::db::{
    DbError,
    blobs::BlobState,
    links::{self, LinkedBlob, Proof},
};
use upstream_client::Priority;

use super::decide::{self, BlobDecision, BlobFacts, Upstream};
use crate::{
    answer::{BlobAnswer, BlobResult},
    cache_status::Outcome,
    caches::{KeyRef, NegativeKey},
    error::{ApiError, Failure},
    placement::lifetime,
    record,
    resolve::Target,
    state::AppState,
};

/// Answers a request for a blob. `own_base` is the URL of the public listener for its client.
pub(crate) async fn pull(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    head: bool,
    own_base: &str,
    priority: Priority,
) -> Result<(BlobAnswer, Outcome), ApiError> {
    let constant = constant_blobs::bytes(digest);
    let mut linked = if constant.is_some() { None } else { find(state, target, digest).await? };
    let mut facts = BlobFacts {
        constant: constant.is_some(),
        link: linked.as_ref().map(|linked| linked.proof),
        stored: is_stored(linked.as_ref()),
        presigned: state.presigned.is_enabled(),
        known_refusal: false,
        upstream: Upstream::NotAsked,
        head,
    };
    let mut failure = None;
    if constant.is_none() && facts.link != Some(Proof::Confirmed) {
        failure = state.caches.refused.get(&negative_key(target, digest)).await;
        facts.known_refusal = failure.is_some();
    }
    // At most one confirmation and one presigned URL.
    loop {
        let outcome = if constant.is_some() || is_stored(linked.as_ref()) {
            Outcome::Hit { ttl: None }
        } else {
            Outcome::Forwarded
        };
        let size = linked.as_ref().and_then(|linked| linked.blob.size);
        match decide::blob(&facts) {
            BlobDecision::Constant => {
                return Ok((BlobAnswer::Constant(constant.unwrap_or_default()), outcome));
            }
            BlobDecision::Describe => {
                return Ok((BlobAnswer::Described(size), outcome));
            }
            BlobDecision::Presign => {
                let lifetime = lifetime(state.config.link_lifetime, size);
                match state.presigned.url(digest, size, lifetime).await {
                    Some(location) => {
                        state.last_reads.touch(digest);
                        return Ok((BlobAnswer::Redirect(location), outcome));
                    }
                    None => facts.presigned = false,
                }
            }
            BlobDecision::Redirect => {
                let location = state.nodes.content_url(&target.repository, digest, size, own_base).await?;
                return Ok((BlobAnswer::Redirect(location), outcome));
            }
            BlobDecision::RefuseKnown => {
                return Err(ApiError::known(
                    Resource::Blob,
                    failure.unwrap_or(UpstreamFailure::NotFound.into()),
                ));
            }
            BlobDecision::Head => match confirm_once(state, target, digest, priority).await {
                Ok(confirmed) => {
                    facts.upstream = Upstream::Has(());
                    facts.stored = is_stored(Some(&confirmed));
                    linked = Some(confirmed);
                }
                Err(error) => {
                    let failed = error.into_failure()?;
                    facts.upstream = Upstream::Failed(failed.class);
                    failure = Some(failed);
                }
            },
            BlobDecision::Refuse(class) => {
                return Err(ApiError::upstream(Resource::Blob, Failure::of(class, failure)));
            }
        }
    }
}

fn is_stored(linked: Option<&LinkedBlob>) -> bool {
    linked.is_some_and(|linked| linked.blob.state == BlobState::Stored)
}

async fn find(state: &AppState, target: &Target, digest: &Digest) -> Result<Option<LinkedBlob>, ApiError> {
    if let Some(linked) = state.caches.blobs.get(&KeyRef(&target.key, digest)).await {
        return Ok(Some(linked));
    }
    let outdated = state.caches.blobs.get_outdated(&KeyRef(&target.key, digest)).await;
    if outdated.is_some() && !state.db.is_available() {
        return Ok(outdated);
    }
    let linked = match links::blob(&state.db, &target.key, digest).await {
        // What the repository linked when the database was last available.
        Err(DbError::Unavailable(_)) if outdated.is_some() => return Ok(outdated),
        linked => linked?,
    };
    if let Some(linked) = &linked {
        state.caches.blobs.insert((target.key.clone(), digest.clone()), linked.clone()).await;
    }
    Ok(linked)
}

/// Starts or joins the confirmation of a blob by its upstream. It is recorded before this returns.
async fn confirm_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    priority: Priority,
) -> BlobResult {
    let key = (target.key.clone(), digest.clone());
    let (flight, _) = state.flights.blobs.join(key, |publisher| {
        let (state, target, digest) = (Arc::clone(state), Arc::clone(target), digest.clone());
        async move { publisher.finish(confirm(&state, &target, &digest, priority).await) }
    });
    flight.result().await.ok_or(ApiError::Panicked)?
}

async fn confirm(state: &AppState, target: &Target, digest: &Digest, priority: Priority) -> BlobResult {
    match target.upstream.client.head_blob(&target.upstream_name, digest, priority).await {
        Ok(head) => record::confirmed_blob(state, target, digest, head.size).await,
        Err(error) => {
            let failure = Failure::from(&error);
            state.caches.note_refusal(negative_key(target, digest), &failure).await;
            Err(ApiError::upstream(Resource::Blob, failure))
        }
    }
}

fn negative_key(target: &Target, digest: &Digest) -> NegativeKey {
    NegativeKey::Blob(target.key.clone(), digest.clone())
}
