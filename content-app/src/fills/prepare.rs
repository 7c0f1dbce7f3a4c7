//! Opens the partial file of a fill and resumes what an earlier fill left.

use std::{sync::Arc, time::Duration};

use backon::{ConstantBuilder, Retryable as _};
use blob_store::{Partial, Segments, StoreError};
use oci_types::Digest;

use super::fill::Fill;
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
    let size = hinted_size(fill.digest(), size.or(saved.size), &present);
    partial.set_size(size);
    if let Some(size) = size {
        let checked = partial.spawn_blocking(move |file| file.check_room(size));
        checked.await.map_err(|_| FillError::Stopped)??;
    }
    let contiguous = present.end_from(0);
    fill.prepared(partial.clone(), present, size);
    if contiguous > 0 {
        tracing::info!(digest = %fill.digest(), bytes = contiguous, "resuming a partial download");
        catch_up(fill, &partial, contiguous).await?;
    }
    Ok(partial)
}

/// The size that a source stated earlier, unless the digest or the present bytes contradict it.
fn hinted_size(digest: &Digest, stated: Option<u64>, present: &Segments) -> Option<u64> {
    let end = present.iter().map(|segment| segment.end).max().unwrap_or(0);
    stated.filter(|size| digest.admits_size(*size) && end <= *size)
}

/// Hashes the contiguous bytes before `end`.
pub(super) async fn catch_up(fill: &Fill, partial: &Partial, end: u64) -> Result<(), FillError> {
    let verifier = fill.verifier();
    partial
        .spawn_blocking(move |file| verifier.catch_up(file, end))
        .await
        .map_err(|_| FillError::Stopped)?
        .map_err(FillError::storage)
}
