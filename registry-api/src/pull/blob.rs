//! A blob: gather facts, decide, act. The bytes are content-app's.

use std::sync::Arc;

use oci_types::{Digest, Millis, RepositoryName, constant_blobs};
use shared_models::db::blobs::{self, BlobRow, BlobState, NewPending};
use upstream_client::Priority;

use super::{
    decide::{self, BlobDecision, BlobFacts, Failure, Upstream},
    failure::failure,
};
use crate::{
    cache_status::Outcome,
    caches::{In, Missing},
    error::{ApiError, Asked},
    resolve::Target,
    single_flight::Flights,
    state::AppState,
};

/// The asks about blobs that run now, by repository and digest.
pub(crate) type BlobFlights = Flights<(RepositoryName, Digest), (), Result<Upstream<()>, ApiError>>;

/// What a request for a blob is answered with.
pub(crate) enum BlobAnswer {
    /// One of the two blobs that this service answers itself.
    Constant(&'static [u8]),
    /// Its size, in bytes, where that is known.
    Described(Option<u64>),
    /// Its bytes are to be had from this address.
    Redirect(String),
}

/// Answers a blob.
pub(crate) async fn pull(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    head: bool,
) -> Result<(BlobAnswer, Outcome), ApiError> {
    let constant = constant_blobs::bytes(digest);
    let mut upstream = Upstream::NotAsked;
    let mut presigned = state.presigned.is_on();
    loop {
        let row = if constant.is_some() { None } else { linked(state, target, digest).await? };
        let facts = BlobFacts {
            constant: constant.is_some(),
            linked: row.is_some(),
            stored: row.as_ref().is_some_and(|row| row.state == BlobState::Stored),
            presigned,
            upstream: upstream.clone(),
            head,
        };
        let outcome = match &row {
            Some(BlobRow { state: BlobState::OnDemand, .. }) => Outcome::Forwarded,
            _ => Outcome::Hit { ttl: None },
        };
        match decide::blob(&facts) {
            BlobDecision::Constant => {
                return Ok((BlobAnswer::Constant(constant.unwrap_or_default()), outcome));
            }
            BlobDecision::Describe => {
                return Ok((BlobAnswer::Described(row.and_then(|row| row.size)), outcome));
            }
            BlobDecision::Redirect => {
                let location = state.nodes.content_url(state, &target.repository, digest).await?;
                return Ok((BlobAnswer::Redirect(location), outcome));
            }
            BlobDecision::Presign => match state.presigned.url(digest, state.config.link_lifetime).await {
                Some(location) => {
                    state.reads.note(digest);
                    return Ok((BlobAnswer::Redirect(location), outcome));
                }
                None => presigned = false,
            },
            BlobDecision::Ask => upstream = ask_once(state, target, digest).await?,
            // Whoever asked upstream has recorded it before telling; only a row that went away since is missing here.
            BlobDecision::RecordPending => return Err(ApiError::Internal),
            BlobDecision::Refuse(refusal) => {
                return Err(ApiError::Refused { asked: Asked::Blob, refusal, negative: false });
            }
        }
    }
}

async fn linked(state: &AppState, target: &Target, digest: &Digest) -> Result<Option<BlobRow>, ApiError> {
    if let Some(row) = state.memory.blobs.get(&In(&target.repository, digest)).await {
        return Ok(Some(row));
    }
    let row = blobs::linked(&state.db, &target.repository, digest).await?;
    if let Some(row) = &row {
        state.memory.blobs.insert((target.repository.clone(), digest.clone()), row.clone()).await;
    }
    Ok(row)
}

/// Asks upstream for the blob, or joins whoever asks; what it has is recorded as pending before this returns.
async fn ask_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
) -> Result<Upstream<()>, ApiError> {
    let missing = Missing::Blob(target.repository.clone(), digest.clone());
    if state.memory.missing.contains_key(&missing) {
        return Err(ApiError::Refused { asked: Asked::Blob, refusal: Failure::NotFound, negative: true });
    }
    let key = (target.repository.clone(), digest.clone());
    let (flight, _) = state.blob_flights.join(key, |_| {
        let (state, target, digest) = (Arc::clone(state), Arc::clone(target), digest.clone());
        async move { ask(&state, &target, &digest, missing).await }
    });
    flight.result().await.unwrap_or(Err(ApiError::Internal))
}

async fn ask(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    missing: Missing,
) -> Result<Upstream<()>, ApiError> {
    match target.upstream.client.head_blob(&target.upstream_name, digest, Priority::Client).await {
        Ok(head) => {
            let pending = NewPending {
                repository: target.row(),
                digest: digest.clone(),
                size: head.size,
                now: Millis::now(),
            };
            blobs::record_pending(&state.db, &pending).await?;
            Ok(Upstream::Has(()))
        }
        Err(error) => {
            let failure = failure(&error);
            if failure == Failure::NotFound {
                state.memory.missing.insert(missing, ()).await;
            }
            Ok(Upstream::Failed(failure))
        }
    }
}
