//! What comes before the first byte of a fill: a place among the others, and its file.

use std::{sync::Arc, time::Duration};

use blob_store::{Partial, StoreError};
use shared_models::Digest;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::{error::FillError, fill::Fill, fills::Context, source::Source};

/// Waits for a place among the fills of the first source's upstream, and only then for one among all: fills of an
/// upstream that stands still wait for each other, and leave the other places to other upstreams.
pub(super) async fn places<'a>(
    context: &'a Context,
    sources: &[Source],
) -> Result<(Option<OwnedSemaphorePermit>, SemaphorePermit<'a>), FillError> {
    let of_upstream = match sources.first() {
        Some(source) => {
            let places = context.upstream_permits(source.upstream());
            Some(places.acquire_owned().await.map_err(|_| FillError::Stopped)?)
        }
        None => None,
    };
    let of_node = context.fill_permits.acquire().await.map_err(|_| FillError::Stopped)?;
    Ok((of_upstream, of_node))
}

/// Opens the partial file, takes up what an earlier fill left, and reserves the space for the rest.
pub(super) async fn open_partial(
    fill: &Arc<Fill>,
    context: &Context,
    size: Option<u64>,
) -> Result<Partial, FillError> {
    let partial = begin(fill.digest(), context, size).await?;
    let opened = partial.clone();
    let (present, size) = blocking(move || {
        let saved = opened.load_map();
        let size = size.or_else(|| saved.as_ref().and_then(|saved| saved.size));
        let present =
            saved.filter(|saved| saved.size == size || saved.size.is_none()).map(|saved| saved.segments);
        if let Some(size) = size {
            opened.reserve(size)?;
        }
        Ok((present.unwrap_or_default(), size))
    })
    .await?;
    let first_run = present.end_from(0);
    fill.begin(partial.clone(), present, size);
    if first_run > 0 {
        tracing::info!(digest = %fill.digest(), bytes = first_run, "taking up a partial download");
        catch_up(fill, &partial, first_run).await?;
    }
    Ok(partial)
}

/// A fill that has just failed may hold the file a moment longer, while its last write ends.
async fn begin(digest: &Digest, context: &Context, size: Option<u64>) -> Result<Partial, FillError> {
    const ATTEMPTS: u32 = 40;
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 1..ATTEMPTS {
        match context.store.begin(digest, size).await {
            Err(StoreError::Busy { .. }) => tokio::time::sleep(PAUSE).await,
            answer => return Ok(answer?),
        }
    }
    Ok(context.store.begin(digest, size).await?)
}

/// Hashes what has landed up to `reach`.
pub(super) async fn catch_up(fill: &Arc<Fill>, partial: &Partial, reach: u64) -> Result<(), FillError> {
    let verifier = fill.verifier();
    let partial = partial.clone();
    tokio::task::spawn_blocking(move || verifier.catch_up(&partial, reach))
        .await
        .map_err(|_| FillError::Stopped)?
        .map_err(|error| FillError::Storage(error.to_string()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FillError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| FillError::Stopped)??)
}
