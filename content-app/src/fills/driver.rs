//! Drives a fill from its first byte to a stored blob.

use std::{sync::Arc, time::Duration};

use blob_store::{Partial, StoreError, Upload};
use oci_types::{Digest, Millis};
use shared_models::db::{
    DbError,
    blobs::{self, BlobState},
};
use tokio::{sync::mpsc::Receiver, time::Instant};
use upstream_client::UpstreamError;

use super::{
    error::FillError,
    fill::{Claimed, Fill},
    opening::{catch_up, open_partial, places},
    progress::Phase,
    registry::Context,
    scheduler::Downloads,
    sources::Supply,
};

/// Runs `fill` to its end and tells everybody who waits.
pub(crate) async fn drive(fill: Arc<Fill>, context: Arc<Context>, demands: Receiver<Claimed>) {
    let _active = context.metrics.active();
    let started = Instant::now();
    let result = fill_up(&fill, &context, demands).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let digest = fill.digest();
    // Then its file holds nothing but the space that was reserved for it.
    let is_empty = fill.is_running() && fill.partial().is_some() && fill.landed() == 0;
    match result {
        Ok(()) => {
            context.metrics.ended("stored");
            tracing::info!(%digest, bytes = fill.landed(), elapsed_ms, "stored a blob");
        }
        Err(FillError::Stopped) => {
            context.metrics.ended("stopped");
            tracing::info!(%digest, bytes = fill.landed(), elapsed_ms, "stopped a download that nobody waits for");
            fill.enter(Phase::Failed(FillError::Stopped));
            if is_empty {
                discard(&context, digest).await;
            }
        }
        Err(FillError::AlreadyStored) => fill.enter(Phase::Failed(FillError::AlreadyStored)),
        Err(FillError::NoSpace) if fill.is_running() => {
            context.metrics.ended("no-space");
            tracing::error!(%digest, "there is no space left for a blob: its clients are served without storing it");
            fill.enter(Phase::Failed(FillError::NoSpace));
            discard(&context, digest).await;
        }
        Err(error) => {
            context.metrics.ended("failed");
            tracing::warn!(%digest, bytes = fill.landed(), elapsed_ms, "a blob could not be filled: {error}");
            if fill.is_running() {
                fill.enter(Phase::Failed(error));
            } else {
                fill.enter(Phase::Unstored);
            }
            if is_empty {
                discard(&context, digest).await;
            }
        }
    }
}

async fn discard(context: &Context, digest: &Digest) {
    if let Err(error) = context.store.discard(digest).await {
        tracing::warn!(%digest, "what had landed of a blob could not be removed: {error}");
    }
}

async fn fill_up(
    fill: &Arc<Fill>,
    context: &Arc<Context>,
    mut demands: Receiver<Claimed>,
) -> Result<(), FillError> {
    let digest = fill.digest();
    // Whoever started this fill looked for the blob before; the fill that stored it may have ended in between.
    if context.open.get(digest).await?.is_some() {
        return Err(FillError::AlreadyStored);
    }
    let (known, recorded) =
        tokio::try_join!(blobs::find(&context.db, digest), blobs::sources(&context.db, digest))?;
    let places = places(context, &recorded).await?;
    let (state, size) = known.map_or((BlobState::OnDemand, None), |row| (row.state, row.size));
    let supply = Supply::open(fill, context, recorded, state).await;
    let partial = match open_partial(fill, context, size, supply.sources()).await {
        Ok(partial) => partial,
        Err(error) => {
            supply.close().await;
            return Err(error);
        }
    };
    let mut downloads = Downloads::new(fill, context, partial.clone(), supply);
    if let Err(error) = download_and_verify(fill, &partial, &mut downloads, &mut demands).await {
        downloads.into_supply().close().await;
        return Err(if state == BlobState::Stored { known_as_stored(error) } else { error });
    }
    fill.enter(Phase::Verified);
    // Nothing is downloaded any more, and a storage that is away is waited for.
    drop(places);
    let (mut supply, upload) = downloads.verified().await;
    let stored = store(fill, context, &mut supply, &partial, upload).await;
    supply.close().await;
    stored
}

/// That no source has a blob which is recorded as stored says nothing of the blob: its bytes are somewhere else.
fn known_as_stored(error: FillError) -> FillError {
    match error {
        FillError::NoSource | FillError::Upstream(UpstreamError::NotFound | UpstreamError::Denied) => {
            FillError::Away
        }
        error => error,
    }
}

async fn download_and_verify(
    fill: &Arc<Fill>,
    partial: &Partial,
    downloads: &mut Downloads<'_>,
    demands: &mut Receiver<Claimed>,
) -> Result<(), FillError> {
    loop {
        downloads.complete(demands).await?;
        catch_up(fill, partial, fill.now().size.unwrap_or(0)).await?;
        if fill.verifier().digest() == *fill.digest() {
            return Ok(());
        }
        downloads.spoiled().await?;
    }
}

async fn store(
    fill: &Arc<Fill>,
    context: &Arc<Context>,
    supply: &mut Supply<'_>,
    partial: &Partial,
    upload: Option<Upload>,
) -> Result<(), FillError> {
    let size = fill.now().size.unwrap_or_else(|| fill.landed());
    let _waiting = match context.waiting_permits.try_acquire() {
        Ok(permit) => permit,
        Err(_) => {
            return Err(FillError::Storage("too many blobs wait until the storage takes them".to_owned()));
        }
    };
    supply.await_turn().await?;
    commit(fill, context, partial, size, upload).await?;
    context.open.trust(fill.digest()).await;
    fill.enter(Phase::Stored);
    mark_stored(fill, context, size).await;
    Ok(())
}

/// Stores the blob, as soon as the storage takes it. Until then its clients read what has landed.
async fn commit(
    fill: &Arc<Fill>,
    context: &Arc<Context>,
    partial: &Partial,
    size: u64,
    mut upload: Option<Upload>,
) -> Result<(), FillError> {
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    const LONGEST_PAUSE: Duration = Duration::from_secs(30);
    let mut pause = FIRST_PAUSE;
    loop {
        match context.store.commit_with(partial, size, upload.take()).await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(digest = %fill.digest(), "a blob is kept on this node until the storage takes it: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = fill.stopped() => return Err(FillError::Stopped),
        }
    }
}

/// The row follows the file. The file alone is enough to serve, so a database that is away delays only the row.
async fn mark_stored(fill: &Arc<Fill>, context: &Arc<Context>, size: u64) {
    const PAUSE: Duration = Duration::from_secs(1);
    let digest = fill.digest();
    loop {
        let error = match blobs::mark_stored(&context.db, digest, size, Millis::now()).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let goes_on = matches!(error, DbError::Unavailable(_)) && {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => true,
                () = fill.stopped() => false,
            }
        };
        if !goes_on {
            tracing::error!(%digest, "a blob is stored, but could not be recorded as such: {error}");
            return;
        }
    }
}
