//! Stores a verified blob and records it.

use std::{sync::Arc, time::Duration};

use blob_store::{Partial, StoreError, Upload};
use oci_types::Millis;
use shared_models::db::{DbError, blobs};

use super::{fill::Fill, phase::Phase};
use crate::{backoff::Delays, error::FillError, source::Sources, state::State};

const MIN_STORE_DELAY: Duration = Duration::from_secs(1);
const MAX_STORE_DELAY: Duration = Duration::from_secs(30);

/// Maximum delay between two attempts to record a stored blob while the database is unavailable.
const MAX_RECORD_DELAY: Duration = Duration::from_secs(1);

/// Stores the blob, makes it readable, and records it in the database.
pub(super) async fn store(
    fill: &Arc<Fill>,
    state: &State,
    sources: &mut Sources<'_>,
    partial: &Partial,
    size: u64,
    upload: Option<Upload>,
) -> Result<(), FillError> {
    let _unstored = state.limits.acquire_unstored()?;
    sources.wait_until_storable(&fill.stop).await?;
    commit(fill, state, partial, size, upload).await?;
    state.blobs.mark_stored(fill.digest()).await;
    fill.enter(Phase::Stored);
    record(fill, state, size).await;
    Ok(())
}

/// Commits the partial file, as soon as the storage is available. Until then, readers read the partial file.
async fn commit(
    fill: &Fill,
    state: &State,
    partial: &Partial,
    size: u64,
    mut upload: Option<Upload>,
) -> Result<(), FillError> {
    let mut delays = Delays::new(MIN_STORE_DELAY, MAX_STORE_DELAY);
    // Repeats until the object store accepts the blob. At most `MAX_UNSTORED` fills wait here.
    loop {
        match state.store.commit(partial, fill.digest(), size, upload.take()).await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(digest = %fill.digest(), %error, "storage unavailable, keeping a blob as a partial file");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(delays.next_delay()) => {}
            () = fill.stop.cancelled() => return Err(FillError::Stopped),
        }
    }
}

/// Records the blob as stored. The file is enough to serve it, so an unavailable database delays only the row.
async fn record(fill: &Fill, state: &State, size: u64) {
    let digest = fill.digest();
    let mut delays = Delays::new(MAX_RECORD_DELAY / 2, MAX_RECORD_DELAY);
    loop {
        let error = match blobs::mark_stored(&state.db, digest, size, Millis::now()).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let is_retried = matches!(error, DbError::Unavailable(_)) && {
            tokio::select! {
                () = tokio::time::sleep(delays.next_delay()) => true,
                () = fill.stop.cancelled() => false,
            }
        };
        if !is_retried {
            tracing::error!(%digest, %error, "failed to record a stored blob");
            return;
        }
    }
}
