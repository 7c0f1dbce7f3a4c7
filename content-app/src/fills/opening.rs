//! What comes before the first byte of a fill: a place among the others, and its file.

use std::{sync::Arc, time::Duration};

use blob_store::{Partial, SavedMap, StoreError};
use oci_types::Digest;
use shared_models::db::blobs::BlobSource;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::{error::FillError, fill::Fill, life::Origin, registry::Context, source::Source};

/// Waits for a place among the fills of the first source's upstream, and only then for one among all: fills of an
/// upstream that stands still wait for each other, and leave the other places to other upstreams.
///
/// The lease is asked for after that: who has it never waits for a place, so nodes that read along with each other's fills
/// never wait in a circle.
pub(super) async fn places<'a>(
    context: &'a Context,
    recorded: &[BlobSource],
) -> Result<(Option<OwnedSemaphorePermit>, SemaphorePermit<'a>), FillError> {
    let known = recorded.iter().find(|source| context.upstreams.contains_key(&source.upstream));
    let of_upstream = match known {
        Some(source) => {
            let places = context.upstream_permits(&source.upstream);
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
    sources: &[Source],
) -> Result<Partial, FillError> {
    let partial = begin(fill.digest(), context, size).await?;
    let opened = partial.clone();
    let (saved, size) = blocking(move || {
        let saved = opened.load_map();
        let admitted = |size: &u64| opened.digest().admits_size(*size);
        let size = size.or_else(|| saved.as_ref().and_then(|saved| saved.size).filter(admitted));
        if let Some(size) = size {
            opened.reserve(size)?;
        }
        Ok((saved.filter(|saved| saved.size == size || saved.size.is_none()), size))
    })
    .await?;
    let origin = saved.as_ref().and_then(|saved| origin(saved, sources));
    let present = saved.map(|saved| saved.segments).unwrap_or_default();
    let first_run = present.end_from(0);
    fill.begin(partial.clone(), present, size, origin);
    if first_run > 0 {
        tracing::info!(digest = %fill.digest(), bytes = first_run, "taking up a partial download");
        catch_up(fill, &partial, first_run).await?;
    }
    Ok(partial)
}

/// What a partial file can be checked against, where its source is still one.
fn origin(saved: &SavedMap, sources: &[Source]) -> Option<Origin> {
    let (name, validator) = saved.source.clone().zip(saved.validator.clone())?;
    let source = sources.iter().position(|source| source.to_string() == name)?;
    Some(Origin { source, name, validator })
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
