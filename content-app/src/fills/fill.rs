//! One download's life, as those who wait for it see it.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use blob_store::{Partial, Segments};
use oci_types::Digest;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, watch};

use super::{
    error::FillError,
    life::{Life, Origin},
    plan::{ClaimId, OPEN_END, Reach},
    progress::{Phase, Progress},
    verifier::Verifier,
};
use crate::config::FillPolicy;

/// The one download of one blob on this node.
pub struct Fill {
    digest: Digest,
    pub(crate) policy: FillPolicy,
    partial: Mutex<Option<Partial>>,
    life: Mutex<Life>,
    progress: watch::Sender<Progress>,
    pub(super) readers: AtomicUsize,
    pub(super) whole_readers: AtomicUsize,
    kept: AtomicBool,
    stopped: AtomicBool,
    /// Held for reading by every write into the file, which goes on when its download is cancelled.
    writes: Arc<RwLock<()>>,
    /// Whether this fill leaves the file alone from now on.
    over: watch::Sender<bool>,
    /// Wakes the task that starts downloads for windows.
    pub(crate) demand: mpsc::Sender<Claimed>,
}

/// A claim, to be downloaded.
pub(crate) type Claimed = (ClaimId, Range<u64>);

impl Fill {
    pub(crate) fn new(digest: Digest, policy: FillPolicy, demand: mpsc::Sender<Claimed>) -> Self {
        let progress = Progress { phase: Phase::Running, generation: 0, size: None };
        let life = Life::new(&digest, Segments::default(), None);
        Self {
            digest,
            policy,
            partial: Mutex::new(None),
            life: Mutex::new(life),
            progress: watch::Sender::new(progress),
            readers: AtomicUsize::new(0),
            whole_readers: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            writes: Arc::default(),
            over: watch::Sender::new(false),
            demand,
        }
    }

    /// The blob's digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The partial file, once it is open.
    pub(crate) fn partial(&self) -> Option<Partial> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a write into the file holds until it is done.
    pub(crate) async fn write_permit(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.writes).read_owned().await
    }

    /// Waits for the writes of downloads that were cancelled.
    pub(crate) async fn settle_writes(&self) {
        drop(self.writes.write().await);
    }

    /// Says that this fill leaves the file alone from now on.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Waits until this fill leaves the file alone.
    pub(crate) async fn ended(&self) {
        // The sender is ours, so there is no error.
        let _ = self.over.subscribe().wait_for(|over| *over).await.is_ok();
    }

    /// Puts the partial file in place and takes up what it has already, from `origin` where that is known.
    pub(crate) fn begin(
        &self,
        partial: Partial,
        present: Segments,
        size: Option<u64>,
        origin: Option<Origin>,
    ) {
        *self.life() = Life::new(&self.digest, present, origin);
        *self.partial.lock().unwrap_or_else(PoisonError::into_inner) = Some(partial);
        self.progress.send_modify(|progress| progress.size = size);
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How things stand now.
    pub(crate) fn now(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether bytes are landing, or about to.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.now().phase, Phase::Running)
    }

    /// Follows every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Tells everybody to look again.
    pub(crate) fn tick(&self) {
        self.progress.send_modify(|_| {});
    }

    /// Moves on. A fill that failed lets go of its file at once, however long a stalled reader stays: the next fill of
    /// this blob needs it.
    pub(crate) fn enter(&self, phase: Phase) {
        if matches!(phase, Phase::Failed(_)) {
            *self.partial.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Fixes the size, in bytes, when a source tells it first.
    pub(crate) fn learn_size(&self, size: u64) {
        self.progress.send_modify(|progress| progress.size = Some(size));
        if let Some(partial) = self.partial() {
            partial.set_size(size);
        }
    }

    /// The end of the bytes that are here from `offset` on.
    pub(crate) fn reach(&self, offset: u64) -> u64 {
        self.life().map.reach(offset)
    }

    /// How many bytes have landed.
    pub fn landed(&self) -> u64 {
        self.life().map.present().covered()
    }

    pub(crate) fn present(&self) -> Segments {
        self.life().map.present().clone()
    }

    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.life().verifier)
    }

    /// What the landed bytes can be checked against.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.life().origin.clone()
    }

    pub(crate) fn contributors(&self) -> Vec<usize> {
        self.life().contributors.clone()
    }

    /// Whether bytes came from a source or from an earlier fill.
    pub(crate) fn has_contributors(&self) -> bool {
        let life = self.life();
        life.inherited || !life.contributors.is_empty()
    }

    /// The one source, by index, that every landed byte came from, if there is just one.
    pub(crate) fn only_contributor(&self) -> Option<usize> {
        let life = self.life();
        match life.contributors.as_slice() {
            [only] if !life.inherited => Some(*only),
            _ => None,
        }
    }

    /// Records who sends bytes now.
    pub(crate) fn contributes(&self, source: usize) {
        let mut life = self.life();
        if !life.contributors.contains(&source) {
            life.contributors.push(source);
        }
    }

    /// Records what the bytes that land now can be checked against later.
    pub(crate) fn originates(&self, origin: Origin) {
        self.life().origin = Some(origin);
    }

    /// Claims the next bytes in order. Without a reader of the whole blob the claim is one segment, so that readers of
    /// windows who come later find the rest unclaimed.
    pub(crate) fn claim_in_order(&self) -> Option<Claimed> {
        let size = self.now().size.unwrap_or(OPEN_END);
        let windows_only = self.readers.load(Ordering::Relaxed) > 0
            && self.whole_readers.load(Ordering::Relaxed) == 0
            && size != OPEN_END;
        let bounded = windows_only.then_some(self.policy.segment);
        self.life().map.claim_in_order(0, size, bounded)
    }

    /// Starts a download for a window that no running one will bring soon.
    pub(crate) fn want(&self, window: &Range<u64>) {
        let Some(size) = self.now().size else { return };
        let reach = Reach { jump_ahead: self.policy.jump_ahead, segment: self.policy.segment };
        let claimed = self.life().map.claim_for_window(window, size, reach);
        if let Some(claimed) = claimed {
            let id = claimed.0;
            if self.demand.try_send(claimed).is_err() {
                // Nobody is woken for this: the reader asks again when something has landed.
                self.life().map.release(id);
            }
        }
    }

    pub(crate) fn landed_up_to(&self, id: ClaimId, position: u64) {
        self.life().map.landed(id, position);
        self.tick();
    }

    pub(crate) fn end_of(&self, id: ClaimId) -> Option<u64> {
        self.life().map.end_of(id)
    }

    pub(crate) fn release(&self, id: ClaimId) {
        self.life().map.release(id);
        self.tick();
    }

    /// Forgets everything that landed: it was wrong.
    pub(crate) fn start_over(&self) {
        self.life().forget(&self.digest);
        self.progress.send_modify(|progress| progress.generation += 1);
    }

    /// Makes the fill go on to its end whoever leaves.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// How many are reading.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// Makes the fill save what it has and end.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.tick();
    }

    /// Waits until the fill is to save what it has and end.
    pub(crate) async fn stopped(&self) {
        let stopped = |_: &Progress| self.stopped.load(Ordering::Relaxed);
        // The sender is ours, so there is no error.
        let _ = self.progress.subscribe().wait_for(stopped).await.is_ok();
    }

    /// Ends the fill when nobody needs it to go on, and says so. From that moment on nobody joins it: who came in just
    /// before keeps it going, and who comes just after starts the next fill.
    pub(crate) fn end_unless_wanted(&self) -> bool {
        let landed = self.landed();
        self.progress.send_if_modified(|progress| {
            let needed = self.readers() > 0
                || self.kept.load(Ordering::Relaxed)
                || self.policy.finish_abandoned.goes_on(landed, progress.size);
            let ends = !needed || self.stopped.load(Ordering::Relaxed);
            if ends {
                progress.phase = Phase::Failed(FillError::Stopped);
            }
            ends
        })
    }
}
