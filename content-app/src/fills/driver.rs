//! Drives a fill: prepare, download, verify, store.

use std::sync::Arc;

use blob_store::{Partial, Segments};
use oci_types::{Digest, Millis};
use shared_models::db::blobs::{self, BlobSource, BlobState};
use tokio::time::Instant;
use upstream_client::UpstreamError;

use super::{
    fill::Fill,
    phase::Phase,
    prepare::{catch_up, open_partial},
    scheduler::{Downloaded, Scheduler},
    store::store,
};
use crate::{error::FillError, limits::FillPermit, source::Sources, state::State};

/// Runs `fill` to its end and reports the result to its readers, the log and the metrics.
pub(super) async fn run(fill: Arc<Fill>, state: Arc<State>) {
    let _active = state.metrics.active();
    let started = Instant::now();
    let result = download_and_store(&fill, &state).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (digest, bytes) = (fill.digest(), fill.present_bytes());
    let is_running = fill.is_running();
    let is_incomplete = is_running || fill.is_failed();
    let (partial, present) = (fill.partial(), fill.present());
    match result {
        Ok(()) => {
            state.metrics.ended("stored");
            tracing::info!(%digest, bytes, elapsed_ms, "stored a blob");
            return;
        }
        Err(FillError::AlreadyStored) => return fill.enter(Phase::Failed(FillError::AlreadyStored)),
        Err(FillError::Stopped) => {
            state.metrics.ended("stopped");
            tracing::info!(%digest, bytes, elapsed_ms, "stopped a fill");
            fill.enter(Phase::Failed(FillError::Stopped));
        }
        Err(error) if is_running && error.permits_bypass() => {
            state.metrics.ended(if matches!(error, FillError::NoSpace) { "no-space" } else { "disk-failed" });
            tracing::error!(%digest, %error, "serving a blob without storing it");
            fill.enter(Phase::Failed(error));
            return discard(&state, digest).await;
        }
        Err(error) => {
            state.metrics.ended("failed");
            tracing::warn!(%digest, bytes, elapsed_ms, %error, "failed to fill a blob");
            fill.enter(if is_running { Phase::Failed(error) } else { Phase::StoreFailed });
        }
    }
    match partial {
        Some(_) if bytes == 0 => discard(&state, digest).await,
        Some(partial) if is_incomplete => release_reservation(digest, &partial, present).await,
        _ => {}
    }
}

/// Frees the disk space that was reserved for bytes that have not arrived.
async fn release_reservation(digest: &Digest, partial: &Partial, present: Segments) {
    let released = partial.spawn_blocking(move |file| file.release_reservation(&present)).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(%digest, %error, "failed to release reserved disk space");
    }
}

async fn discard(state: &State, digest: &Digest) {
    if let Err(error) = state.store.discard_partial(digest).await {
        tracing::warn!(%digest, %error, "failed to discard partial download");
    }
}

async fn download_and_store(fill: &Arc<Fill>, state: &State) -> Result<(), FillError> {
    let digest = fill.digest();
    // The request that started this fill looked the blob up before; a fill that stored it may have ended since.
    if state.blobs.get(digest).await?.is_some() {
        return Err(FillError::AlreadyStored);
    }
    let (row, recorded) = tokio::try_join!(
        blobs::find(&state.db, digest),
        blobs::sources(&state.db, digest, fill.repository(), Millis::now())
    )?;
    let permit = acquire(fill, state, &recorded).await?;
    let (blob_state, size) = row.map_or((BlobState::OnDemand, None), |row| (row.state, row.size));
    let offset = {
        let fill = Arc::clone(fill);
        Arc::new(move || fill.contiguous_end(0))
    };
    let mut sources = Sources::open(state, digest, &recorded, blob_state, offset).await;
    let result = with_sources(fill, state, size, &recorded, &mut sources, permit).await;
    sources.release_lease().await;
    result.map_err(|error| match blob_state {
        BlobState::Stored if fill.is_running() => of_stored_blob(error),
        _ => error,
    })
}

async fn acquire(fill: &Fill, state: &State, recorded: &[BlobSource]) -> Result<FillPermit, FillError> {
    let permit = state.limits.acquire_fill(recorded);
    tokio::pin!(permit);
    let mut version = fill.subscribe();
    fill.set_waiting(true);
    // Until the last reader leaves.
    loop {
        version.borrow_and_update();
        if fill.stop_if_unused() {
            return Err(FillError::Stopped);
        }
        tokio::select! {
            permit = &mut permit => {
                fill.set_waiting(false);
                return permit;
            }
            () = fill.stop.cancelled() => {}
            changed = version.changed() => changed.map_err(|_| FillError::Stopped)?,
        }
    }
}

async fn with_sources(
    fill: &Arc<Fill>,
    state: &State,
    size: Option<u64>,
    recorded: &[BlobSource],
    sources: &mut Sources<'_>,
    mut permit: FillPermit,
) -> Result<(), FillError> {
    let partial = open_partial(fill, state, size).await?;
    let mut scheduler = Scheduler::new(fill, state, sources, partial.clone());
    // `Sources` bounds the mismatches.
    let size = loop {
        // A download yields at most once in ten seconds, while clients wait for it.
        let size = loop {
            match scheduler.download().await? {
                Downloaded::All { size } => break size,
                Downloaded::Yielded => {
                    tracing::info!(digest = %fill.digest(), "slow download yields to one that waits");
                    // Neither a permit nor a lease is held by a fill that waits for a permit.
                    scheduler.release_lease().await;
                    drop(permit);
                    permit = acquire(fill, state, recorded).await?;
                    scheduler.acquire_lease().await;
                }
            }
        };
        catch_up(fill, &partial, size).await?;
        if fill.verifier().digest_of(size).as_ref() == Some(fill.digest()) {
            break size;
        }
        scheduler.mismatched().await?;
    };
    fill.enter(Phase::Verified);
    // The download is complete, and the wait for an unavailable storage may be long.
    drop(permit);
    let upload = scheduler.finish().await;
    store(fill, state, sources, &partial, size, upload).await
}

/// The error for a blob that is recorded as stored. If the sources do not have it, the storage is
/// reported as unavailable, because the bytes are there.
fn of_stored_blob(error: FillError) -> FillError {
    match error {
        FillError::NoSource | FillError::Upstream(UpstreamError::NotFound | UpstreamError::Denied) => {
            FillError::StorageUnavailable
        }
        error => error,
    }
}
