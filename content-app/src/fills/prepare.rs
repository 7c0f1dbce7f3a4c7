//! Opens the partial file of a fill and resumes what an earlier fill left.

use std::{sync::Arc, time::Duration};

use backon::{ConstantBuilder, Retryable as _};
use blob_store::{Partial, PartialFile, SegmentMap, StoreError};

use super::fill::{Fill, Origin};
use crate::{error::FillError, source::Sources, state::State};

/// Attempts to open a partial file whose last write of a failed fill has not ended.
const MAX_ATTEMPTS: usize = 40;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// Opens the partial file, loads its segment map, and reserves the space for the blob.
pub(super) async fn open_partial(
    fill: &Arc<Fill>,
    state: &State,
    size: Option<u64>,
    sources: &Sources<'_>,
) -> Result<Partial, FillError> {
    let partial = (|| state.store.open_partial(fill.digest(), size))
        .retry(ConstantBuilder::new().with_delay(ATTEMPT_INTERVAL).with_max_times(MAX_ATTEMPTS))
        .when(|error| matches!(error, StoreError::Busy { .. }))
        .await?;
    let (saved, digest) = (partial.segment_map(), fill.digest().clone());
    let (saved, size) = blocking(&partial, move |file| {
        let is_valid = |size: &u64| digest.admits_size(*size);
        let size = size.or_else(|| saved.as_ref().and_then(|saved| saved.size).filter(is_valid));
        if let Some(size) = size {
            file.reserve(size)?;
        }
        Ok((saved.filter(|saved| saved.size == size || saved.size.is_none()), size))
    })
    .await?;
    let origin = saved.as_ref().and_then(|saved| origin(saved, sources));
    let present = saved.map(|saved| saved.segments).unwrap_or_default();
    let contiguous = present.end_from(0);
    fill.prepared(partial.clone(), present, size, origin);
    if contiguous > 0 {
        tracing::info!(digest = %fill.digest(), bytes = contiguous, "resuming a partial download");
        catch_up(fill, &partial, contiguous).await?;
    }
    Ok(partial)
}

/// The origin of the saved bytes, where it is still a source.
fn origin(saved: &SegmentMap, sources: &Sources<'_>) -> Option<Origin> {
    let (name, validator) = saved.source.clone().zip(saved.validator.clone())?;
    Some(Origin { source: sources.find(&name)?, name, validator })
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

async fn blocking<T: Send + 'static>(
    partial: &Partial,
    work: impl FnOnce(&PartialFile) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FillError> {
    Ok(partial.spawn_blocking(work).await.map_err(|_| FillError::Stopped)??)
}
