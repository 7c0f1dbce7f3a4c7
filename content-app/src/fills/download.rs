//! One download: the bytes of a claim, from a source into the partial file.

use std::sync::Arc;

use blob_store::{Partial, StoreError};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    batches::Batches,
    fill::{Fill, Origin},
    plan::{Claim, ClaimId, OPEN_END},
};
use crate::{
    error::{DownloadError, FillError},
    read_mode::ReadMode,
    source::{Source, SourceBody, SourceRequest, byte_length},
};

/// The maximum number of bytes of one write.
const BATCH_SIZE: u64 = 1024 * 1024;

/// What a download needs.
pub(super) struct Download {
    pub(super) fill: Arc<Fill>,
    pub(super) partial: Partial,
    pub(super) source: Source,
    /// The index of the source.
    pub(super) index: usize,
    pub(super) claim: Claim,
    pub(super) mode: ReadMode,
    pub(super) cancel: CancellationToken,
}

/// Downloads a claim, and releases it at the end. Returns early when cancelled, with no write left running.
pub(super) async fn download(download: Download) -> Result<(), DownloadError> {
    let Download { fill, partial, source, index, claim, mode, cancel } = download;
    let _release = ReleaseOnDrop { fill: &fill, id: claim.id };
    let body = tokio::select! {
        body = open(&fill, &source, index, &claim, mode) => body?,
        () = cancel.cancelled() => return Ok(()),
    };
    let position = claim.range.start;
    let mut transfer = Transfer { fill: &fill, partial, id: claim.id, position, write: None };
    let mut batches = Batches::new(body.stream);
    let received = tokio::select! {
        received = transfer.receive(&mut batches) => received,
        () = cancel.cancelled() => Ok(()),
    };
    let written = transfer.finish_write().await;
    received.and(written)
}

struct ReleaseOnDrop<'a> {
    fill: &'a Fill,
    id: ClaimId,
}

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.fill.release(self.id);
    }
}

/// Opens the source and checks that it has the same blob as the present bytes.
async fn open(
    fill: &Fill,
    source: &Source,
    index: usize,
    claim: &Claim,
    mode: ReadMode,
) -> Result<SourceBody, DownloadError> {
    let (start, end) = (claim.range.start, claim.range.end);
    let validator = fill.origin().filter(|origin| origin.source == index).map(|origin| origin.validator);
    let request = SourceRequest {
        digest: fill.digest(),
        start,
        end: (end != OPEN_END).then_some(end),
        size: fill.size(),
        mode,
        validator: validator.as_deref(),
    };
    let body = source.open(request).await?;
    check_size(fill, &body)?;
    if start > 0 && validator.is_some() && body.validator.is_some() && validator != body.validator {
        return Err(DownloadError::Changed);
    }
    let origin = body.validator.clone();
    let origin = origin.map(|validator| Origin { source: index, name: source.to_string(), validator });
    fill.add_contributor(index, origin);
    Ok(body)
}

fn check_size(fill: &Fill, body: &SourceBody) -> Result<(), DownloadError> {
    match (fill.size(), body.size) {
        (Some(size), Some(of_source)) if size != of_source => Err(DownloadError::WrongSize),
        (None, Some(size)) if !fill.digest().admits_size(size) => Err(DownloadError::WrongSize),
        (None, Some(size)) => {
            fill.set_size(size);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Writes the batches of a body. While one batch is written and hashed, the next one is received.
struct Transfer<'a> {
    fill: &'a Arc<Fill>,
    partial: Partial,
    id: ClaimId,
    /// The offset of the next batch.
    position: u64,
    write: Option<Write>,
}

/// A batch that is being written.
struct Write {
    task: JoinHandle<Result<(), StoreError>>,
    end: u64,
}

impl Transfer<'_> {
    async fn receive(&mut self, batches: &mut Batches) -> Result<(), DownloadError> {
        loop {
            let room = self.claim_end().saturating_sub(self.position).min(BATCH_SIZE);
            let next = async { Ok(if room > 0 { batches.next(room).await } else { Ok(Vec::new()) }) };
            // Written bytes become readable at once, however long the next ones take.
            let (batch, ()) = futures::future::try_join(next, self.finish_write()).await?;
            let batch = batch?;
            if batch.is_empty() {
                return self.check_end(batches).await;
            }
            self.start_write(batch);
        }
    }

    /// The end of the claim at present. It decreases when a reader claims the tail.
    fn claim_end(&self) -> u64 {
        self.fill.end_of(self.id).unwrap_or(self.position)
    }

    fn start_write(&mut self, batch: Vec<Bytes>) {
        let start = self.position;
        self.position += batch.iter().map(byte_length).sum::<u64>();
        let (verifier, fill) = (self.fill.verifier(), Arc::clone(self.fill));
        let task = self.partial.spawn_blocking(move |file| {
            let mut offset = start;
            for piece in &batch {
                file.write_at(offset, piece)?;
                offset += byte_length(piece);
            }
            verifier.update(file, start, &batch, |from| fill.contiguous_end(from));
            Ok(())
        });
        self.write = Some(Write { task, end: self.position });
    }

    /// Waits for the running write, then makes its bytes readable. May be cancelled and called again.
    async fn finish_write(&mut self) -> Result<(), DownloadError> {
        if let Some(Write { task, end }) = &mut self.write {
            let (written, end) = (task.await, *end);
            self.write = None;
            written.map_err(|_| FillError::Stopped)?.map_err(FillError::from)?;
            self.fill.received(self.id, end);
        }
        Ok(())
    }

    /// Checks that the body ended where the claim or the blob ends.
    async fn check_end(&self, batches: &mut Batches) -> Result<(), DownloadError> {
        let (position, end) = (self.position, self.claim_end());
        let is_wrong = match self.fill.size() {
            None if end == OPEN_END && self.fill.digest().admits_size(position) => {
                self.fill.set_size(position);
                false
            }
            None => end == OPEN_END,
            Some(size) => position < end.min(size) || (position == size && batches.has_more().await),
        };
        if is_wrong { Err(DownloadError::WrongSize) } else { Ok(()) }
    }
}
