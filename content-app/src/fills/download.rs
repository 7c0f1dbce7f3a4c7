//! One download: the bytes of a claim, from a source into the partial file.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blob_store::{Partial, StoreError};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upstream_client::FirstByteLimit;

use super::{
    batches::Batches,
    fill::Fill,
    plan::{Claim, ClaimId, OPEN_END},
};
use crate::{
    error::{DownloadError, FillError},
    read_mode::ReadMode,
    source::{Source, SourceBody, SourceRequest, byte_length},
};

/// The maximum number of bytes of one write.
const BATCH_SIZE: u64 = 1024 * 1024;

/// The time over which the rate of a download is measured.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The parameters of a download.
pub(super) struct Download {
    pub(super) fill: Arc<Fill>,
    pub(super) partial: Partial,
    pub(super) source: Source,
    /// The index of the source.
    pub(super) index: usize,
    pub(super) claim: Claim,
    pub(super) mode: ReadMode,
    /// The minimum rate in bytes per second, below which the download fails; 0 for no limit.
    pub(super) min_rate: u64,
    pub(super) first_byte: FirstByteLimit,
    pub(super) cancel: CancellationToken,
}

/// Downloads a claim, and releases it at the end. Returns early when cancelled, with no write left running.
pub(super) async fn download(download: Download) -> Result<(), DownloadError> {
    let Download { fill, partial, source, index, claim, mode, min_rate, first_byte, cancel } = download;
    let _release = ReleaseOnDrop { fill: &fill, id: claim.id };
    let body = tokio::select! {
        body = open(&fill, &partial, &source, index, &claim, mode, first_byte) => body?,
        () = cancel.cancelled() => return Ok(()),
    };
    let position = claim.range.start;
    let mut transfer = Transfer { fill: &fill, partial, id: claim.id, position, write: None };
    let traffic = Arc::new(AtomicU64::new(0));
    let mut batches = Batches::new(body.into_stream({
        let (fill, traffic) = (Arc::clone(&fill), Arc::clone(&traffic));
        move |bytes| {
            fill.count_traffic(bytes);
            traffic.fetch_add(bytes, Ordering::Relaxed);
        }
    }));
    let received = tokio::select! {
        received = transfer.receive(&mut batches) => received,
        () = too_slow(&traffic, min_rate) => Err(DownloadError::TooSlow),
        () = cancel.cancelled() => Ok(()),
    };
    let written = transfer.finish_write().await;
    received.and(written)
}

/// Returns when fewer than `min_rate` bytes per second were received for [`RATE_WINDOW`].
async fn too_slow(traffic: &AtomicU64, min_rate: u64) {
    let min_bytes = min_rate.saturating_mul(RATE_WINDOW.as_secs());
    let mut before = 0;
    loop {
        tokio::time::sleep(RATE_WINDOW).await;
        let now = traffic.load(Ordering::Relaxed);
        if now - before < min_bytes {
            return;
        }
        before = now;
    }
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

/// Opens the source, checks that it states the known size, and reserves disk space for that size.
async fn open(
    fill: &Fill,
    partial: &Partial,
    source: &Source,
    index: usize,
    claim: &Claim,
    mode: ReadMode,
    first_byte: FirstByteLimit,
) -> Result<SourceBody, DownloadError> {
    let (start, end) = (claim.range.start, claim.range.end);
    let request = SourceRequest {
        digest: fill.digest(),
        start,
        end: (end != OPEN_END).then_some(end),
        size: fill.size(),
        mode,
        first_byte,
    };
    let body = source.open(request).await?;
    if body.ignores_range() {
        fill.set_ignores_ranges();
        if mode == ReadMode::Range {
            // The bytes in order arrive sooner than the same bytes again up to the range.
            return Err(DownloadError::RangeIgnored);
        }
    }
    check_size(fill, start, &body)?;
    if let Some(size) = fill.size().filter(|size| body.size == Some(*size)) {
        let reserved = partial.spawn_blocking(move |file| file.reserve(size));
        reserved.await.map_err(|_| FillError::Stopped)?.map_err(FillError::from)?;
    }
    fill.add_contributor(index);
    Ok(body)
}

/// The length of a response that ends before the known size does not contradict it, unless it adds no byte.
fn check_size(fill: &Fill, start: u64, body: &SourceBody) -> Result<(), DownloadError> {
    match (fill.size(), body.size) {
        (Some(size), Some(length)) if body.is_length && start < length && length < size => Ok(()),
        (Some(size), Some(of_source)) if size != of_source => Err(DownloadError::WrongSize),
        (None, Some(size)) if !fill.set_size(size) => Err(DownloadError::WrongSize),
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
            // Written bytes become readable at once, regardless of how long the next ones take.
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

    /// Checks that the body ended where the claim or the blob ends. One that ended earlier was
    /// interrupted, regardless of its framing; only more bytes than the known size prove another
    /// size.
    async fn check_end(&self, batches: &mut Batches) -> Result<(), DownloadError> {
        let (position, end) = (self.position, self.claim_end());
        match self.fill.size() {
            None if end == OPEN_END && self.fill.set_size(position) => Ok(()),
            _ if position < end => Err(DownloadError::Interrupted),
            Some(size) if position == size && batches.has_more().await => Err(DownloadError::WrongSize),
            _ => Ok(()),
        }
    }
}
