//! A reader of a fill: one client or peer, at its own offset and speed.

use std::{ops::Range, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{
    fill::{Fill, FillState},
    phase::Phase,
    plan::RangePolicy,
};
use crate::{config::UnverifiedRanges, error::FillError, read_mode::ReadMode};

/// Maximum number of claims of readers that wait for a download. Beyond it, a reader requests its
/// claim again after the next change.
const MAX_REQUESTS: usize = 64;

/// How long a fill continues for a client that had to wait too long, so that it finds the bytes when it retries.
const LINGER: Duration = Duration::from_secs(30);

/// Lets a fill continue for a client that had to wait too long.
pub(crate) fn linger(fill: Arc<Fill>, mode: ReadMode) {
    let reader = Reader::join(fill, mode);
    tokio::spawn(async move { timeout(LINGER, reader.fill.wait_until_ended()).await });
}

/// Reads a fill. Never delays the download; the fill runs at least as long as it has a reader.
pub(crate) struct Reader {
    fill: Arc<Fill>,
    version: watch::Receiver<u64>,
    /// The generation of the bytes that were given to this reader; set with the first ones.
    generation: Option<u32>,
    /// The size that was given to this reader.
    size: Option<u64>,
    mode: ReadMode,
}

impl Reader {
    /// Joins `fill`.
    pub(crate) fn join(fill: Arc<Fill>, mode: ReadMode) -> Self {
        fill.add_reader(mode);
        let version = fill.subscribe();
        Self { fill, version, generation: None, size: None, mode }
    }

    /// The fill.
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// How this reader reads.
    pub(crate) fn mode(&self) -> ReadMode {
        self.mode
    }

    /// Changes the mode: whether a range is the whole blob is known only with its size.
    pub(crate) fn set_mode(&mut self, mode: ReadMode) {
        if mode.reads_to_end() != self.mode.reads_to_end() {
            self.fill.add_reader(mode);
            self.fill.remove_reader(self.mode);
        }
        self.mode = mode;
    }

    /// The size of the blob in bytes; waits until it is known.
    ///
    /// # Errors
    /// The fill failed.
    pub(crate) async fn size(&mut self) -> Result<u64, FillError> {
        loop {
            self.version.borrow_and_update();
            let size = self.fill.read(|state| match &state.phase {
                Phase::Failed(error) => Err(error.clone()),
                _ => Ok(state.size),
            })?;
            if let Some(size) = size {
                self.size = Some(size);
                return Ok(size);
            }
            self.changed().await?;
        }
    }

    /// Waits until at least one byte of `rest` can be read, and returns the end of the bytes that can. An empty range is
    /// all of an empty blob: its reader waits until the digest is verified.
    ///
    /// The last bytes of a blob that is not verified are deferred for readers to the end. All its
    /// bytes are deferred for readers of ranges, if the policy requires it.
    ///
    /// # Errors
    /// The fill failed, or the bytes or the size that this reader was given were discarded.
    pub(crate) async fn readable(&mut self, rest: &Range<u64>) -> Result<u64, FillError> {
        loop {
            self.version.borrow_and_update();
            if let Some(end) = self.readable_now(rest)? {
                return Ok(end);
            }
            self.changed().await?;
        }
    }

    fn readable_now(&mut self, rest: &Range<u64>) -> Result<Option<u64>, FillError> {
        let (fill, mode) = (&self.fill, self.mode);
        let (generation, given) = (&mut self.generation, self.size);
        let mut is_requested = false;
        let end = fill.read(|state| {
            if generation.is_some_and(|mine| mine != state.generation) {
                return Err(FillError::WrongDigest);
            }
            if given.zip(state.size).is_some_and(|(given, size)| given != size) {
                return Err(FillError::WrongSize);
            }
            let is_verified = match &state.phase {
                Phase::Failed(error) => return Err(error.clone()),
                Phase::Verified | Phase::Stored | Phase::StoreFailed => true,
                Phase::Running => false,
            };
            let end = if is_verified {
                rest.end
            } else {
                let limit = unverified_limit(fill, state, rest, mode);
                state.plan.contiguous_end(rest.start).min(limit)
            };
            if end > rest.start || (rest.is_empty() && is_verified) {
                *generation = Some(state.generation);
                return Ok(Some(end));
            }
            is_requested = mode != ReadMode::Whole && request(fill, state, rest);
            Ok(None)
        });
        if is_requested {
            fill.notify();
        }
        end
    }

    /// Whether the bytes of this reader are served before the blob is verified.
    pub(crate) fn is_unverified(&self) -> bool {
        self.mode == ReadMode::Range
            && self.fill.policy.unverified_ranges == UnverifiedRanges::Serve
            && self.fill.is_running()
    }

    /// Whether the bytes that this reader was given were discarded since.
    pub(crate) fn is_outdated(&self) -> bool {
        self.generation.is_some_and(|mine| mine != self.fill.read(|state| state.generation))
    }

    async fn changed(&mut self) -> Result<(), FillError> {
        self.version.changed().await.map_err(|_| FillError::Stopped)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.remove_reader(self.mode);
    }
}

fn unverified_limit(fill: &Fill, state: &FillState, rest: &Range<u64>, mode: ReadMode) -> u64 {
    if mode.reads_to_end() {
        state.size.unwrap_or(0).saturating_sub(fill.policy.hold_back)
    } else if fill.policy.unverified_ranges == UnverifiedRanges::Serve {
        rest.end
    } else {
        0
    }
}

/// Requests a download for a range, unless a running one is about to bring it.
fn request(fill: &Fill, state: &mut FillState, range: &Range<u64>) -> bool {
    let Some(size) = state.size.filter(|_| !state.ignores_ranges) else { return false };
    let policy = RangePolicy { jump_ahead: fill.policy.jump_ahead, segment: fill.policy.segment };
    let Some(claim) = state.plan.claim_range(range, size, policy) else { return false };
    if state.requests.len() >= MAX_REQUESTS {
        state.plan.release(claim.id);
        return false;
    }
    state.requests.push_back(claim);
    true
}
