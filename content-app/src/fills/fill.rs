//! One fill: a state with a version, shared by its driver, its downloads and its readers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use blob_store::{Partial, Segments};
use oci_types::{Digest, RepositoryName};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    phase::{Phase, Snapshot},
    plan::{Claim, ClaimId, OPEN_END, Plan},
    responses::Responses,
    verifier::Verifier,
};
use crate::{config::FillPolicy, error::FillError, read_mode::ReadMode, source::Contributors};

/// The download of one blob into the storage.
pub(crate) struct Fill {
    digest: Digest,
    /// The repository of the request that started the fill, as clients call it.
    repository: Option<RepositoryName>,
    pub(crate) policy: FillPolicy,
    state: Mutex<FillState>,
    /// Incremented after every change that a reader or the driver may wait for.
    version: watch::Sender<u64>,
    /// The number of bytes that sources have sent.
    traffic: AtomicU64,
    /// Cancelled: the driver saves the bytes and ends.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the driver at its end: the partial file is free for the next fill.
    pub(crate) closed: CancellationToken,
}

/// The state of a fill.
pub(super) struct FillState {
    pub(super) phase: Phase,
    /// The size of the blob in bytes, once known.
    pub(super) size: Option<u64>,
    /// Incremented when all bytes are discarded: a reader that was given bytes of an earlier generation must end.
    pub(super) generation: u32,
    /// Present from the end of the preparation until the fill fails.
    partial: Option<Partial>,
    /// The only record of which bytes are present.
    pub(super) plan: Plan,
    /// Claims of readers that wait for a download.
    pub(super) requests: VecDeque<Claim>,
    verifier: Arc<Verifier>,
    responses: Responses,
    /// A source has sent the blob from its beginning in place of a range.
    pub(super) ignores_ranges: bool,
    is_waiting: bool,
    readers: usize,
    /// The number of readers that read to the end.
    readers_to_end: usize,
    /// The fill continues without readers.
    is_pinned: bool,
}

/// Whether a blob with this digest and these bytes can have this size.
pub(super) fn is_possible_size(digest: &Digest, present: &Segments, size: u64) -> bool {
    digest.admits_size(size) && present.iter().all(|segment| segment.end <= size)
}

impl Fill {
    /// A fill that is about to run.
    pub(super) fn new(
        digest: Digest,
        repository: Option<RepositoryName>,
        policy: FillPolicy,
        stop: CancellationToken,
    ) -> Self {
        let state = FillState {
            phase: Phase::Running,
            size: None,
            generation: 0,
            partial: None,
            plan: Plan::default(),
            requests: VecDeque::new(),
            verifier: Arc::new(Verifier::new(digest.algorithm())),
            responses: Responses::default(),
            ignores_ranges: false,
            is_waiting: false,
            readers: 0,
            readers_to_end: 0,
            is_pinned: false,
        };
        Self {
            digest,
            repository,
            policy,
            state: Mutex::new(state),
            version: watch::Sender::new(0),
            traffic: AtomicU64::new(0),
            stop,
            closed: CancellationToken::new(),
        }
    }

    /// The digest of the blob.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The repository of the request that started the fill.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        self.repository.as_ref()
    }

    /// Reads the state.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut FillState) -> T) -> T {
        read(&mut self.state.lock())
    }

    /// Changes the state and increments the version.
    pub(super) fn update<T>(&self, update: impl FnOnce(&mut FillState) -> T) -> T {
        let updated = update(&mut self.state.lock());
        self.notify();
        updated
    }

    pub(super) fn notify(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// A receiver that is notified of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The reported state of the fill.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.read(|state| Snapshot {
            phase: state.phase.clone(),
            size: state.size,
            present: state.plan.present().covered(),
            readers: state.readers,
        })
    }

    /// Whether bytes are being received, or will be.
    pub(crate) fn is_running(&self) -> bool {
        self.read(|state| matches!(state.phase, Phase::Running))
    }

    /// Whether the fill ended without the blob.
    pub(crate) fn is_failed(&self) -> bool {
        self.read(|state| matches!(state.phase, Phase::Failed(_)))
    }

    /// The size of the blob in bytes, once known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.read(|state| state.size)
    }

    /// The partial file, from the end of the preparation until the fill fails.
    pub(crate) fn partial(&self) -> Option<Partial> {
        self.read(|state| state.partial.clone())
    }

    pub(super) fn verifier(&self) -> Arc<Verifier> {
        self.read(|state| Arc::clone(&state.verifier))
    }

    /// The segments that are present.
    pub(super) fn present(&self) -> Segments {
        self.read(|state| state.plan.present().clone())
    }

    /// The number of bytes that are present.
    pub(super) fn present_bytes(&self) -> u64 {
        self.read(|state| state.plan.present().covered())
    }

    /// The end of the contiguous bytes that are present from `offset` on.
    pub(crate) fn contiguous_end(&self, offset: u64) -> u64 {
        self.read(|state| state.plan.contiguous_end(offset))
    }

    /// Waits until the fill has ended, with or without the blob.
    pub(crate) async fn wait_until_ended(&self) {
        let mut version = self.subscribe();
        while self.read(|state| matches!(state.phase, Phase::Running | Phase::Verified)) {
            // The sender is a field of this fill, so there is no error.
            let _ = version.changed().await.is_ok();
        }
    }

    /// Sets the partial file, with the bytes that an earlier fill left in it.
    pub(super) fn prepared(&self, partial: Partial, present: Segments, size: Option<u64>) {
        self.update(|state| {
            state.responses = Responses::of_earlier_fill(!present.is_empty());
            state.plan = Plan::resume(present);
            state.size = size;
            state.partial = Some(partial);
        });
    }

    /// Enters a phase. A fill that fails drops its partial file at once, even if slow readers
    /// remain: the next fill of the blob needs the file.
    pub(super) fn enter(&self, phase: Phase) {
        self.update(|state| {
            if matches!(phase, Phase::Failed(_)) {
                state.partial = None;
            }
            state.phase = phase;
        });
    }

    /// Sets the size in bytes that a source is the first to state. Returns false when the digest or
    /// the present bytes contradict it.
    pub(super) fn set_size(&self, size: u64) -> bool {
        let is_possible = self.read(|state| is_possible_size(&self.digest, state.plan.present(), size));
        if is_possible {
            self.change_size(Some(size));
        }
        is_possible
    }

    /// Whether the present bytes are the blob, according to the digest. If so, sets the size to their number, whatever
    /// was stated before.
    pub(super) fn is_complete(&self) -> bool {
        let end = self.read(|state| match state.plan.present().iter().next() {
            Some(only) if only.start == 0 && state.plan.present().iter().count() == 1 => Some(only.end),
            _ => None,
        });
        let Some(size) = end else { return false };
        let is_complete = self.verifier().digest_of(size).as_ref() == Some(&self.digest);
        if is_complete {
            self.change_size(Some(size));
        }
        is_complete
    }

    /// Clears the size, when the source that stated it failed without a byte.
    pub(super) fn forget_size(&self) {
        self.change_size(None);
    }

    fn change_size(&self, size: Option<u64>) {
        let partial = self.update(|state| {
            state.size = size;
            state.partial.clone()
        });
        if let Some(partial) = partial {
            partial.set_size(size);
        }
    }

    /// Which sources the present bytes came from.
    pub(super) fn contributors(&self) -> Contributors {
        self.read(|state| state.responses.contributors())
    }

    /// Whether a source of this fill has sent bytes.
    pub(super) fn has_downloaded(&self) -> bool {
        self.read(|state| !state.responses.is_empty())
    }

    /// Records that a source sends bytes in a response.
    pub(super) fn add_contributor(&self, source: usize) {
        self.read(|state| state.responses.push(source));
    }

    /// Records that a source has sent the blob from its beginning in place of a range. Claims of readers are left to the
    /// download in order.
    pub(super) fn set_ignores_ranges(&self) {
        self.update(|state| {
            state.ignores_ranges = true;
            for claim in state.requests.drain(..) {
                state.plan.release(claim.id);
            }
        });
    }

    /// Sets whether the fill waits for a permit.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        self.update(|state| state.is_waiting = is_waiting);
    }

    /// Whether bytes are being received: the fill runs, and does not wait for a permit.
    pub(crate) fn is_receiving(&self) -> bool {
        self.read(|state| matches!(state.phase, Phase::Running) && !state.is_waiting)
    }

    /// Claims the next bytes in order. While all readers read ranges, the claim is one segment, so that the rest is
    /// unclaimed for later readers of ranges. A source that ignores ranges would send all bytes again for each segment.
    pub(super) fn claim_next(&self) -> Option<Claim> {
        self.read(|state| {
            let ranges_only = state.readers > 0
                && state.readers_to_end == 0
                && state.size.is_some()
                && !state.ignores_ranges;
            let segment = ranges_only.then_some(self.policy.segment);
            state.plan.claim_next(state.size.unwrap_or(OPEN_END), segment)
        })
    }

    /// The next claim of a reader that waits for a download.
    pub(super) fn next_request(&self) -> Option<Claim> {
        self.read(|state| {
            // Claims of a discarded generation no longer exist.
            while let Some(claim) = state.requests.pop_front() {
                if state.plan.end_of(claim.id).is_some() {
                    return Some(claim);
                }
            }
            None
        })
    }

    /// Records that the bytes of a claim before `position` are in the partial file.
    pub(super) fn received(&self, id: ClaimId, position: u64) {
        self.update(|state| state.plan.received(id, position));
    }

    /// The end of a claim at present; not beyond the size, once known.
    pub(super) fn end_of(&self, id: ClaimId) -> Option<u64> {
        self.read(|state| Some(state.plan.end_of(id)?.min(state.size.unwrap_or(OPEN_END))))
    }

    /// Counts bytes that a source has sent.
    pub(super) fn count_traffic(&self, bytes: u64) {
        self.traffic.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The number of bytes that sources have sent, including those before the start of a claim.
    pub(super) fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    pub(super) fn release(&self, id: ClaimId) {
        self.update(|state| state.plan.release(id));
    }

    /// Discards all bytes and the size, which do not match the digest or contradict a source.
    pub(super) fn restart(&self) {
        self.forget_size();
        self.update(|state| {
            state.plan.clear();
            state.requests.clear();
            state.verifier = Arc::new(Verifier::new(self.digest.algorithm()));
            state.responses = Responses::default();
            state.generation += 1;
        });
    }

    /// Makes the fill continue without readers.
    pub(crate) fn pin(&self) {
        self.read(|state| state.is_pinned = true);
    }

    pub(super) fn add_reader(&self, mode: ReadMode) {
        self.update(|state| {
            state.readers += 1;
            state.readers_to_end += usize::from(mode.reads_to_end());
        });
    }

    pub(super) fn remove_reader(&self, mode: ReadMode) {
        self.update(|state| {
            state.readers -= 1;
            state.readers_to_end -= usize::from(mode.reads_to_end());
        });
    }

    /// Ends the fill when it is stopped or no longer needed, and returns whether it ended. A reader
    /// that joined before keeps it running; a later reader starts the next fill.
    pub(super) fn stop_if_unused(&self) -> bool {
        let is_stopped = self.stop.is_cancelled();
        let ends = self.read(|state| {
            let is_needed = state.readers > 0
                || state.is_pinned
                || self.policy.finish_abandoned.goes_on(state.plan.present().covered(), state.size);
            let ends = !is_needed || is_stopped;
            if ends {
                state.phase = Phase::Failed(FillError::Stopped);
            }
            ends
        });
        if ends {
            self.notify();
        }
        ends
    }
}
