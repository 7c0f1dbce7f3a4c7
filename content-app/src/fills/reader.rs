//! One client's way through a fill: its own offset, its own pace.

use std::{ops::Range, sync::Arc};

use tokio::sync::watch;

use super::{
    error::FillError,
    fill::Fill,
    interest::Interest,
    progress::{Phase, Progress},
    read_mode::Part,
};
use crate::config::UnverifiedRanges;

/// Reads a fill. Never holds the download back, and counts as its reader until it is dropped.
pub(crate) struct Reader {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
    /// Of the bytes this reader has been given; set with the first.
    generation: Option<u32>,
    _interest: Interest,
}

impl Reader {
    /// Joins `fill` for a part of the blob.
    pub(crate) fn join(fill: Arc<Fill>, part: Part) -> Self {
        let interest = Interest::in_part(&fill, part);
        let progress = fill.subscribe();
        Self { fill, progress, generation: None, _interest: interest }
    }

    /// The fill that is read.
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// The blob's size, in bytes; waits until it is known.
    pub(crate) async fn size(&mut self) -> Result<u64, FillError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            if let Phase::Failed(error) = now.phase {
                return Err(error);
            }
            if let Some(size) = now.size {
                return Ok(size);
            }
            self.changed().await?;
        }
    }

    /// How far a reader of `window` may read from `offset` on; waits until that is at least one byte. An empty window is
    /// all of an empty blob: its reader waits until the digest is verified.
    ///
    /// The last bytes of a blob that is not verified are kept back from whoever reads it whole, and from readers of
    /// windows where the policy says so.
    pub(crate) async fn readable(
        &mut self,
        offset: u64,
        window: &Range<u64>,
        part: Part,
    ) -> Result<u64, FillError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            if self.generation.is_some_and(|mine| mine != now.generation) {
                return Err(FillError::WrongDigest);
            }
            let verified = match now.phase {
                Phase::Failed(error) => return Err(error),
                Phase::Verified | Phase::Stored | Phase::Unstored => true,
                Phase::Running => false,
            };
            let end = if verified {
                window.end
            } else {
                let limit = self.unverified_limit(now.size.unwrap_or(0), window, part);
                self.fill.reach(offset).min(limit)
            };
            if end > offset || (window.is_empty() && verified) {
                self.generation = Some(now.generation);
                return Ok(end);
            }
            if part != Part::Whole {
                self.fill.want(&(offset..window.end));
            }
            self.changed().await?;
        }
    }

    /// Whether this window would be served before the blob is verified.
    pub(crate) fn is_unverified(&self, part: Part) -> bool {
        part == Part::Window
            && self.fill.policy.unverified_ranges == UnverifiedRanges::Serve
            && matches!(self.fill.now().phase, Phase::Running)
    }

    /// Which generation of the bytes this reader is given.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.unwrap_or_else(|| self.fill.now().generation)
    }

    /// Whether bytes given to this reader are of a generation that was thrown away since.
    pub(crate) fn is_outdated(&self) -> bool {
        self.generation.is_some_and(|mine| mine != self.progress.borrow().generation)
    }

    fn unverified_limit(&self, size: u64, window: &Range<u64>, part: Part) -> u64 {
        let policy = &self.fill.policy;
        if part.runs_to_the_end() {
            size.saturating_sub(policy.hold_back)
        } else if policy.unverified_ranges == UnverifiedRanges::Serve {
            window.end
        } else {
            0
        }
    }

    async fn changed(&mut self) -> Result<(), FillError> {
        self.progress.changed().await.map_err(|_| FillError::Stopped)
    }
}
