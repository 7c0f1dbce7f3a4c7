//! Starts, replaces and ends the downloads of one fill until all bytes are present.

use std::sync::Arc;

use blob_store::{Partial, Upload};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use upstream_client::FirstByteLimit;

use super::{
    checkpoint::Checkpoint,
    download::{Download, RATE_WINDOW, download},
    fill::Fill,
    plan::Claim,
};
use crate::{
    error::{DownloadError, FillError},
    read_mode::ReadMode,
    source::{Resumption, Source, Sources, UpstreamSource},
    state::State,
};

/// The result of a download.
struct Ended {
    /// The source, by index.
    source: usize,
    /// The number of failures when the download began.
    round: u32,
    result: Result<(), DownloadError>,
}

/// How [`Scheduler::download`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Downloaded {
    /// All bytes of the blob, of this size, are present.
    All { size: u64 },
    /// Some bytes are present, and the fill must wait for a permit again.
    Yielded,
}

/// The downloads of one fill.
pub(super) struct Scheduler<'a, 's> {
    fill: &'a Arc<Fill>,
    state: &'a State,
    sources: &'a mut Sources<'s>,
    partial: Partial,
    running: JoinSet<Ended>,
    /// Cancels the running downloads.
    cancel: CancellationToken,
    /// The download that brings the bytes in order, if one runs.
    in_order: Option<Id>,
    /// Downloads start again at this time, after a failure.
    not_before: Instant,
    /// Downloads for readers of ranges start again at this time, after one was refused.
    no_ranges_before: Instant,
    /// The number of failures.
    round: u32,
    checkpoint: Checkpoint,
    /// The upload of the contiguous bytes while they arrive, where the storage is an object store.
    upload: Option<Upload>,
}

impl<'a, 's> Scheduler<'a, 's> {
    pub(super) fn new(
        fill: &'a Arc<Fill>,
        state: &'a State,
        sources: &'a mut Sources<'s>,
        partial: Partial,
    ) -> Self {
        Self {
            fill,
            state,
            sources,
            running: JoinSet::new(),
            cancel: CancellationToken::new(),
            in_order: None,
            not_before: Instant::now(),
            no_ranges_before: Instant::now(),
            round: 0,
            checkpoint: Checkpoint::new(partial.clone(), fill.policy.checkpoint_bytes),
            upload: None,
            partial,
        }
    }

    /// Downloads until all bytes are present, or until the fill yields, because it is slow and
    /// another fill waits for a permit.
    ///
    /// # Errors
    /// No source has them, the disk failed, or the fill is stopped or no longer needed. The segment map is saved.
    pub(super) async fn download(&mut self) -> Result<Downloaded, FillError> {
        let result = self.download_all().await;
        if !matches!(result, Ok(Downloaded::All { .. })) {
            self.cancel().await;
            self.checkpoint.save(self.fill).await;
        }
        result
    }

    async fn download_all(&mut self) -> Result<Downloaded, FillError> {
        let fill = self.fill;
        let mut version = fill.subscribe();
        let min_bytes = fill.policy.min_rate.saturating_mul(RATE_WINDOW.as_secs());
        let mut measured = (Instant::now() + RATE_WINDOW, fill.traffic());
        // `Sources` bounds the failures without progress; the body of each source bounds the
        // received bytes.
        loop {
            version.borrow_and_update();
            let present = fill.present_bytes();
            if let Some(size) = fill.size().filter(|size| present >= *size && self.running.is_empty()) {
                return Ok(Downloaded::All { size });
            }
            if Instant::now() >= measured.0 {
                let traffic = fill.traffic();
                if traffic - measured.1 < min_bytes && self.state.limits.is_contended() {
                    return Ok(Downloaded::Yielded);
                }
                measured = (Instant::now() + RATE_WINDOW, traffic);
            }
            if fill.stop_if_unused() {
                return Err(FillError::Stopped);
            }
            self.checkpoint.save_if_due(fill, present);
            self.advance_upload();
            let now = Instant::now();
            let (is_delayed, are_ranges_delayed) = (now < self.not_before, now < self.no_ranges_before);
            if !is_delayed {
                self.start_in_order()?;
                if !are_ranges_delayed {
                    self.start_requested()?;
                }
            }
            let save_at = self.checkpoint.due_at(present);
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await?,
                () = self.sources.holder_lost() => {
                    self.cancel().await;
                    self.sources.take_over().await;
                }
                () = sleep_until(self.not_before), if is_delayed => {}
                () = sleep_until(self.no_ranges_before), if are_ranges_delayed => {}
                () = sleep_until(save_at.unwrap_or(now)), if save_at.is_some() => {}
                () = sleep_until(measured.0) => {}
                () = fill.stop.cancelled() => {}
                changed = version.changed() => changed.map_err(|_| FillError::Stopped)?,
            }
        }
    }

    /// Uploads the contiguous bytes, unless another node does.
    fn advance_upload(&mut self) {
        if self.upload.is_none() && self.sources.is_leader() {
            self.upload = self.state.store.start_upload(&self.partial);
        }
        if let Some(upload) = &self.upload {
            upload.advance(self.fill.contiguous_end(0));
        }
    }

    fn start_in_order(&mut self) -> Result<(), FillError> {
        if self.in_order.is_none()
            && let Some(claim) = self.fill.claim_next()
        {
            self.in_order = Some(self.start(claim, ReadMode::Rest)?);
        }
        Ok(())
    }

    fn start_requested(&mut self) -> Result<(), FillError> {
        while self.running.len() < self.fill.policy.max_downloads_per_fill
            && let Some(claim) = self.fill.next_request()
        {
            self.start(claim, ReadMode::Range)?;
        }
        Ok(())
    }

    fn start(&mut self, claim: Claim, mode: ReadMode) -> Result<Id, FillError> {
        let current = self.sources.current();
        let (index, source) = current.inspect_err(|_| self.fill.release(claim.id))?;
        if claim.range.start > 0 && !self.fill.has_downloaded() {
            self.count_resume(&source);
        }
        let (round, cancel) = (self.round, self.cancel.clone());
        let (min_rate, first_byte) = match self.sources.has_alternative(index) {
            true => (self.fill.policy.min_rate, FirstByteLimit::Short),
            false => (0, FirstByteLimit::Full),
        };
        let download = download(Download {
            fill: Arc::clone(self.fill),
            partial: self.partial.clone(),
            source,
            index,
            claim,
            mode,
            min_rate,
            first_byte,
            cancel,
        });
        let task = self.running.spawn(async move { Ended { source: index, round, result: download.await } });
        Ok(task.id())
    }

    fn count_resume(&self, source: &Source) {
        if let Some(upstream) = source.upstream().map(UpstreamSource::upstream) {
            self.state.metrics.resumed(upstream);
        }
    }

    async fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) -> Result<(), FillError> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        if self.in_order == Some(id) {
            self.in_order = None;
        }
        let Ok((_, Ended { source: index, round, result })) = ended else {
            return Err(FillError::storage("a download panicked"));
        };
        let Err(error) = result else {
            self.sources.progressed();
            return Ok(());
        };
        if matches!(error, DownloadError::RangeIgnored) {
            // The bytes arrive in order, and no further range is requested.
            return Ok(());
        }
        let present = self.fill.present_bytes();
        if self.checkpoint.has_advanced(present) {
            self.sources.progressed();
        }
        if error.is_of_source() && self.running.is_empty() && self.fill.is_complete() {
            // The source does not have the rest that a false size promised.
            return Ok(());
        }
        if let Some(source) = self.sources.get(index) {
            tracing::warn!(digest = %self.fill.digest(), %source, bytes = present, %error, "download failed");
            if present > 0 {
                self.count_resume(source);
            }
        }
        if error.is_of_source() && present == 0 && self.running.is_empty() {
            // The size belongs to the source that stated it.
            self.fill.forget_size();
        }
        if error.is_of_source() && self.in_order.is_some() {
            // The source rejected a concurrent request. The readers of the range wait for the other
            // downloads.
            self.no_ranges_before = Instant::now() + self.fill.policy.backoff_max;
            return Ok(());
        } else if error.is_of_source() && round < self.round {
            // A cause that breaks several downloads at once counts as one failure.
            return Ok(());
        }
        self.round += 1;
        let Resumption { delay, starts_over } = self.sources.failed(index, &error, present > 0).await?;
        if starts_over {
            self.restart().await;
        }
        self.not_before = Instant::now() + delay;
        Ok(())
    }

    /// Releases the lease, so that another node may download the blob. No download runs.
    pub(super) async fn release_lease(&mut self) {
        self.upload = None;
        self.sources.release_lease().await;
    }

    /// Acquires the lease again, or follows its holder.
    pub(super) async fn acquire_lease(&mut self) {
        self.sources.acquire_or_follow().await;
    }

    /// Discards all bytes, which do not match the digest.
    ///
    /// # Errors
    /// No other source is left.
    pub(super) async fn mismatched(&mut self) -> Result<(), FillError> {
        self.state.metrics.wrong_bytes();
        let left = self.sources.mismatched(self.fill.contributors()).await;
        self.restart().await;
        if left.is_err() {
            self.state.store.discard_partial(self.fill.digest()).await?;
        }
        // The readers were disconnected and will retry: by then, the blob should be complete.
        self.fill.pin();
        left
    }

    async fn restart(&mut self) {
        self.cancel().await;
        self.upload = None;
        self.fill.restart();
        self.checkpoint.reset();
    }

    /// Cancels the running downloads, and waits for their writes.
    async fn cancel(&mut self) {
        self.cancel.cancel();
        while self.running.join_next().await.is_some() {}
        self.cancel = CancellationToken::new();
        self.in_order = None;
    }

    /// Ends the downloads of a verified blob, and returns the upload, which continues.
    pub(super) async fn finish(mut self) -> Option<Upload> {
        if self.state.store.is_shared() {
            // The process may end before the upload.
            self.checkpoint.save(self.fill).await;
        }
        self.upload
    }
}
