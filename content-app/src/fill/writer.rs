//! Drives a fill from its first byte to a stored blob: claims, downloads, retries, verification.

use std::{sync::Arc, time::Duration};

use blob_store::Partial;
use shared_models::{
    Digest, Millis,
    db::{DbError, blobs},
};
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
    fills::Context,
    opening::{catch_up, open_partial, places},
    progress::Phase,
    rotation::Rotation,
    source::Source,
};

/// Runs `fill` to its end and tells everybody who waits.
pub(crate) async fn drive(fill: Arc<Fill>, context: Arc<Context>, demands: Receiver<Claimed>) {
    let _active = context.metrics.active();
    let started = Instant::now();
    let result = fill_up(&fill, &context, demands).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let digest = fill.digest();
    match result {
        Ok(()) => {
            context.metrics.ended("stored");
            tracing::info!(%digest, bytes = fill.landed(), elapsed_ms, "stored a blob");
        }
        Err(FillError::Stopped) => {
            context.metrics.ended("stopped");
            tracing::info!(%digest, bytes = fill.landed(), elapsed_ms, "stopped a download that nobody waits for");
            fill.enter(Phase::Failed(FillError::Stopped));
        }
        Err(FillError::AlreadyStored) => fill.enter(Phase::Failed(FillError::AlreadyStored)),
        Err(FillError::NoSpace) => {
            context.metrics.ended("no-space");
            tracing::error!(%digest, "there is no space left for a blob: its clients are served without storing it");
            fill.enter(Phase::Failed(FillError::NoSpace));
            if let Err(error) = context.store.discard(digest).await {
                tracing::warn!(%digest, "what had landed of a blob could not be removed: {error}");
            }
        }
        Err(error) => {
            context.metrics.ended("failed");
            tracing::warn!(%digest, bytes = fill.landed(), elapsed_ms, "a blob could not be filled: {error}");
            if matches!(fill.now().phase, Phase::Running) {
                fill.enter(Phase::Failed(error));
            } else {
                fill.enter(Phase::Unstored);
            }
        }
    }
}

async fn fill_up(
    fill: &Arc<Fill>,
    context: &Arc<Context>,
    mut demands: Receiver<Claimed>,
) -> Result<(), FillError> {
    let digest = fill.digest();
    // Whoever started this fill looked for the blob before; the fill that stored it may have ended in between.
    if context.store.stored(digest).await?.is_some() {
        return Err(FillError::AlreadyStored);
    }
    let (known, recorded) =
        tokio::try_join!(blobs::find(&context.db, digest), blobs::sources(&context.db, digest))?;
    let sources = Source::among(recorded, |name| context.upstreams.get(name).cloned());
    let _places = places(context, &sources).await?;
    let size = known.and_then(|row| row.size);
    let partial = open_partial(fill, context, size).await?;
    let mut downloads = Downloads {
        fill,
        context,
        rotation: Rotation::new(sources.len()),
        sources,
        running: JoinSet::new(),
        in_order: None,
        not_before: Instant::now(),
        checkpoint: Checkpoint::new(partial.clone(), fill.policy.checkpoint_bytes),
    };
    loop {
        match downloads.until_complete(&mut demands).await {
            Ok(()) => {}
            Err(error) => {
                downloads.stop().await;
                return Err(error);
            }
        }
        if verify(fill, &partial).await? {
            break;
        }
        downloads.spoiled().await?;
    }
    fill.enter(Phase::Verified);
    let size = fill.now().size.unwrap_or_else(|| fill.landed());
    context.store.commit(&partial, size).await?;
    fill.enter(Phase::Stored);
    mark_stored(context, digest, size).await;
    Ok(())
}

async fn verify(fill: &Arc<Fill>, partial: &Partial) -> Result<bool, FillError> {
    catch_up(fill, partial, fill.now().size.unwrap_or(0)).await?;
    Ok(fill.verifier().digest() == *fill.digest())
}

/// The row follows the file. The file alone is enough to serve, so a database that is away delays only the row.
async fn mark_stored(context: &Arc<Context>, digest: &Digest, size: u64) {
    const ATTEMPTS: u32 = 60;
    for attempt in 1..=ATTEMPTS {
        match blobs::mark_stored(&context.db, digest, size, Millis::now()).await {
            Ok(()) => return,
            Err(DbError::Unavailable(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_secs(1)).await
            }
            Err(error) => {
                tracing::error!(%digest, "a blob is stored, but could not be recorded as such: {error}");
                return;
            }
        }
    }
}

/// Which source a download read from, and how it ended.
type Ended = (usize, Result<(), DownloadError>);

/// The downloads of one fill that run now.
struct Downloads<'a> {
    fill: &'a Arc<Fill>,
    context: &'a Arc<Context>,
    sources: Vec<Source>,
    rotation: Rotation,
    running: JoinSet<Ended>,
    /// The download that brings the bytes in order, if it runs.
    in_order: Option<tokio::task::Id>,
    /// After a failure, nothing is asked before this.
    not_before: Instant,
    checkpoint: Checkpoint,
}

impl Downloads<'_> {
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
            let resting = Instant::now() < self.not_before;
            if self.in_order.is_none() && !resting {
                self.start_in_order()?;
            }
            let save = self.checkpoint.due(landed);
            let room = self.running.len() < self.fill.policy.max_downloads_per_fill && !resting;
            tokio::select! {
                Some(claim) = demands.recv(), if room => {
                    // A claim on bytes that were thrown away since is gone.
                    if self.fill.end_of(claim.0).is_some() {
                        self.start(claim)?;
                    }
                }
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await?,
                () = sleep_until(self.not_before), if resting => {}
                () = sleep_until(save.unwrap_or(started)), if save.is_some() => {}
                changed = progress.changed() => changed.map_err(|_| FillError::Stopped)?,
            }
        }
    }

    fn start_in_order(&mut self) -> Result<(), FillError> {
        if let Some(claim) = self.fill.claim_in_order() {
            self.in_order = Some(self.start(claim)?);
        }
        Ok(())
    }

    fn start(&mut self, claim: Claimed) -> Result<tokio::task::Id, FillError> {
        let index = self.rotation.current().inspect_err(|_| self.fill.release(claim.0))?;
        let Some(source) = self.sources.get(index).cloned() else { return Err(FillError::NoSource) };
        if claim.1.start > 0 && self.fill.contributors().is_empty() {
            self.context.metrics.resumed(source.upstream());
        }
        let fill = Arc::clone(self.fill);
        let task = self.running.spawn(async move { (index, download(fill, index, source, claim).await) });
        Ok(task.id())
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
        // Only what this fill cancelled itself ends without a result.
        let Ok((_, (index, result))) = ended else { return Ok(()) };
        let Err(error) = result else {
            self.rotation.progressed();
            return Ok(());
        };
        let landed = self.fill.landed();
        if self.checkpoint.has_advanced(landed) {
            self.rotation.progressed();
        }
        let upstream = self.sources.get(index).map_or("", Source::upstream);
        tracing::warn!(digest = %self.fill.digest(), upstream, bytes = landed, "a download broke: {error}");
        if landed > 0 {
            self.context.metrics.resumed(upstream);
        }
        if matches!(error, DownloadError::Changed) {
            self.running.shutdown().await;
            self.fill.settle_writes().await;
            self.in_order = None;
            self.fill.start_over();
            self.checkpoint.forget();
        }
        let pause = self.rotation.failed(index, &error, landed > 0, &self.fill.policy)?;
        self.not_before = Instant::now() + pause;
        Ok(())
    }

    /// The bytes were wrong: nothing of them is kept, and whoever sent them is asked last from now on. Where that is not
    /// known, because they came from several sources, nobody is blamed, and the next attempt keeps to one source.
    async fn spoiled(&mut self) -> Result<(), FillError> {
        let digest = self.fill.digest();
        let until = Millis::now().after(self.fill.policy.set_aside_for);
        self.context.metrics.wrong_bytes();
        let culprit = self.fill.only_contributor();
        if culprit.is_none() {
            tracing::error!(%digest, "bytes of several downloads do not match the digest together: fetching them anew");
            self.rotation.stay();
        }
        if let Some(index) = culprit
            && let Some(source) = self.sources.get(index)
        {
            tracing::error!(%digest, upstream = source.upstream(), "upstream sent bytes that do not match the digest");
            let (upstream, repository) = (source.upstream(), source.repository());
            if let Err(error) =
                blobs::set_aside_source(&self.context.db, digest, upstream, repository, until).await
            {
                tracing::warn!(%digest, upstream, "the source could not be set aside: {error}");
            }
            self.rotation.leave_out(index, FillError::WrongDigest);
        }
        self.fill.start_over();
        self.checkpoint.forget();
        if let Err(error) = self.rotation.current() {
            self.context.store.discard(digest).await?;
            return Err(error);
        }
        // Its clients were cut off by us and ask again: what they find should be right by then.
        self.fill.keep();
        Ok(())
    }

    /// Stops what runs and saves what has landed.
    async fn stop(&mut self) {
        self.running.shutdown().await;
        self.fill.settle_writes().await;
        self.checkpoint.save(self.fill).await;
    }
}
