//! Opens the partial file of a fill and resumes what an earlier fill left.

use std::{io, sync::Arc, time::Duration};

use backon::{ConstantBuilder, Retryable as _};
use blob_store::{Partial, Segments, StoreError, is_damage};

use super::fill::{Fill, is_possible_size};
use crate::{error::FillError, state::State};

/// Maximum attempts to open a partial file while the last write of a failed fill is running.
const MAX_ATTEMPTS: usize = 40;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// Opens the partial file, and hashes the bytes that an earlier fill left in it.
pub(super) async fn open_partial(
    fill: &Arc<Fill>,
    state: &State,
    size: Option<u64>,
) -> Result<Partial, FillError> {
    let partial = (|| state.store.open_partial(fill.digest(), size))
        .retry(ConstantBuilder::new().with_delay(ATTEMPT_INTERVAL).with_max_times(MAX_ATTEMPTS))
        .when(|error| matches!(error, StoreError::Busy { .. }))
        .await?;
    let saved = partial.segment_map().unwrap_or_default();
    let present = saved.segments;
    let hints = [size, saved.size].into_iter().flatten();
    let size = hints.into_iter().find(|size| is_possible_size(fill.digest(), &present, *size));
    partial.set_size(size);
    if let Some(size) = size {
        let checked = partial.spawn_blocking(move |file| file.check_room(size));
        checked.await.map_err(|_| FillError::Stopped)??;
    }
    let contiguous = present.end_from(0);
    fill.prepared(partial.clone(), present, size);
    if contiguous == 0 {
        return Ok(partial);
    }
    tracing::info!(digest = %fill.digest(), bytes = contiguous, "resuming a partial download");
    match hash(fill, &partial, contiguous).await? {
        Ok(()) => Ok(partial),
        Err(error) if is_damage(&error) => {
            tracing::error!(digest = %fill.digest(), %error, "partial download is damaged, starting over");
            fill.restart();
            state.store.discard_partial(fill.digest()).await?;
            let partial = state.store.open_partial(fill.digest(), size).await?;
            fill.prepared(partial.clone(), Segments::default(), size);
            Ok(partial)
        }
        Err(error) => Err(FillError::storage(error)),
    }
}

/// Hashes the contiguous bytes before `end`.
pub(super) async fn catch_up(fill: &Fill, partial: &Partial, end: u64) -> Result<(), FillError> {
    hash(fill, partial, end).await?.map_err(FillError::storage)
}

async fn hash(fill: &Fill, partial: &Partial, end: u64) -> Result<io::Result<()>, FillError> {
    let verifier = fill.verifier();
    let hashed = partial.spawn_blocking(move |file| verifier.catch_up(file, end));
    hashed.await.map_err(|_| FillError::Stopped)
}
