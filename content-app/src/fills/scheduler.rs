//! The downloads of one fill that run now: started, followed, replaced, until all bytes are here.

use std::sync::Arc;

use blob_store::{Partial, Upload};
use tokio::{
    sync::mpsc::Receiver,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    checkpoint::Checkpoint,
    download::{DownloadError, download},
    error::FillError,
    fill::{Claimed, Fill},
    read_mode::Part,
    registry::Context,
    source::{Source, UpstreamSource},
    sources::Supply,
};

/// A download that ran.
struct Ended {
    /// The source it read from.
    source: usize,
    /// How many failures had counted when it began.
    round: u32,
    result: Result<(), DownloadError>,
}

/// The downloads of one fill.
pub(super) struct Downloads<'a> {
    fill: &'a Arc<Fill>,
    context: &'a Arc<Context>,
    partial: Partial,
    supply: Supply<'a>,
    running: JoinSet<Ended>,
    /// The download that brings the bytes in order, if it runs.
    in_order: Option<tokio::task::Id>,
    /// After a failure, nothing is asked before this.
    not_before: Instant,
    /// After a window was refused, no other is asked for before this.
    no_windows_before: Instant,
    /// How many failures have counted.
    round: u32,
    checkpoint: Checkpoint,
    /// Goes along with what has landed in order, where the storage takes parts.
    upload: Option<Upload>,
}

impl<'a> Downloads<'a> {
    pub(super) fn new(
        fill: &'a Arc<Fill>,
        context: &'a Arc<Context>,
        partial: Partial,
        supply: Supply<'a>,
    ) -> Self {
        Self {
            fill,
            context,
            supply,
            running: JoinSet::new(),
            in_order: None,
            not_before: Instant::now(),
            no_windows_before: Instant::now(),
            round: 0,
            checkpoint: Checkpoint::new(partial.clone(), fill.policy.checkpoint_bytes),
            upload: None,
            partial,
        }
    }

    /// Downloads until all bytes are here.
    ///
    /// # Errors
    /// No source has them, the disk does not take them, or nobody wants them any more. What has landed is saved.
    pub(super) async fn complete(&mut self, demands: &mut Receiver<Claimed>) -> Result<(), FillError> {
        let done = self.until_complete(demands).await;
        if done.is_err() {
            self.cancel().await;
            self.checkpoint.save(self.fill).await;
        }
        done
    }

    async fn until_complete(&mut self, demands: &mut Receiver<Claimed>) -> Result<(), FillError> {
        let mut progress = self.fill.subscribe();
        let started = Instant::now();
        loop {
            let landed = self.fill.landed();
            if self.fill.now().size.is_some_and(|size| landed >= size) && self.running.is_empty() {
                return Ok(());
            }
            if self.fill.end_unless_wanted() {
                return Err(FillError::Stopped);
            }
            self.checkpoint.keep_up(self.fill, landed);
            self.upload();
            let resting = Instant::now() < self.not_before;
            if self.in_order.is_none() && !resting {
                self.start_in_order()?;
            }
            let save = self.checkpoint.due(landed);
            let one_too_many = Instant::now() < self.no_windows_before;
            let full = self.running.len() >= self.fill.policy.max_downloads_per_fill;
            let room = !full && !resting && !one_too_many;
            tokio::select! {
                Some(claim) = demands.recv(), if room => {
                    // A claim on bytes that were thrown away since is gone.
                    if self.fill.end_of(claim.0).is_some() {
                        self.start(claim, Part::Window)?;
                    }
                }
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await?,
                () = self.supply.lost() => {
                    self.cancel().await;
                    self.supply.succeed().await;
                }
                () = sleep_until(self.not_before), if resting => {}
                () = sleep_until(self.no_windows_before), if one_too_many => {}
                () = sleep_until(save.unwrap_or(started)), if save.is_some() => {}
                changed = progress.changed() => changed.map_err(|_| FillError::Stopped)?,
            }
        }
    }

    /// Uploads along, unless another node does.
    fn upload(&mut self) {
        if self.upload.is_none() && self.supply.is_own() {
            self.upload = self.context.store.upload(&self.partial);
        }
        if let Some(upload) = &self.upload {
            upload.advance(self.fill.reach(0));
        }
    }

    fn start_in_order(&mut self) -> Result<(), FillError> {
        if let Some(claim) = self.fill.claim_in_order() {
            self.in_order = Some(self.start(claim, Part::Rest)?);
        }
        Ok(())
    }

    fn start(&mut self, claim: Claimed, part: Part) -> Result<tokio::task::Id, FillError> {
        let (index, source) = self.supply.current().inspect_err(|_| self.fill.release(claim.0))?;
        if claim.1.start > 0 && self.fill.contributors().is_empty() {
            self.count_resumption(&source);
        }
        let (fill, round) = (Arc::clone(self.fill), self.round);
        let task = self.running.spawn(async move {
            Ended { source: index, round, result: download(fill, index, source, claim, part).await }
        });
        Ok(task.id())
    }

    fn count_resumption(&self, source: &Source) {
        if let Some(upstream) = source.upstream().map(UpstreamSource::upstream) {
            self.context.metrics.resumed(upstream);
        }
    }

    async fn ended(
        &mut self,
        ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>,
    ) -> Result<(), FillError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(cancelled) => cancelled.id(),
        };
        if self.in_order == Some(id) {
            self.in_order = None;
        }
        let Ended { source: index, round, result } = match ended {
            Ok((_, ended)) => ended,
            Err(lost) if lost.is_panic() => {
                return Err(FillError::Storage("a download panicked".to_owned()));
            }
            // This fill cancelled it.
            Err(_) => return Ok(()),
        };
        let Err(error) = result else {
            self.supply.progressed();
            return Ok(());
        };
        let landed = self.fill.landed();
        if self.checkpoint.has_advanced(landed) {
            self.supply.progressed();
        }
        if let Some(source) = self.supply.sources().get(index) {
            tracing::warn!(digest = %self.fill.digest(), %source, bytes = landed, "a download broke: {error}");
            if landed > 0 {
                self.count_resumption(source);
            }
        }
        if matches!(error, DownloadError::Changed) {
            self.start_over().await;
        } else if error.is_of_source() && self.in_order.is_some() {
            // One request too many beside those that bring the bytes: who waits for its window waits for them.
            self.no_windows_before = Instant::now() + self.fill.policy.backoff_max;
            return Ok(());
        } else if error.is_of_source() && round < self.round {
            // What breaks several downloads at once is one failure.
            return Ok(());
        }
        self.round += 1;
        let pause = self.supply.failed(index, &error, landed > 0).await?;
        self.not_before = Instant::now() + pause;
        Ok(())
    }

    /// All bytes are here, and they are wrong: nothing of them is kept.
    ///
    /// # Errors
    /// No other source is left.
    pub(super) async fn spoiled(&mut self) -> Result<(), FillError> {
        self.context.metrics.wrong_bytes();
        let left = self.supply.spoiled().await;
        self.start_over().await;
        if left.is_err() {
            self.context.store.discard(self.fill.digest()).await?;
        }
        // Its clients were cut off by us and ask again: what they find should be right by then.
        self.fill.keep();
        left
    }

    async fn start_over(&mut self) {
        self.cancel().await;
        self.upload = None;
        self.fill.start_over();
        self.checkpoint.forget();
    }

    /// Cancels what runs. Its writes have ended when this returns.
    async fn cancel(&mut self) {
        self.running.shutdown().await;
        self.in_order = None;
        self.fill.settle_writes().await;
    }

    /// All bytes are here, and they are right: what is needed to store them.
    pub(super) async fn verified(mut self) -> (Supply<'a>, Option<Upload>) {
        if self.context.store.is_shared() {
            // Storing them may take until the next life of this process.
            self.checkpoint.save(self.fill).await;
        }
        (self.supply, self.upload)
    }

    /// Gives the sources back, to be closed.
    pub(super) fn into_supply(self) -> Supply<'a> {
        self.supply
    }
}
