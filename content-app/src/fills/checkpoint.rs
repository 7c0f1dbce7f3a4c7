//! Saves the segment map of a partial file at intervals, so that a crash loses few bytes.

use std::sync::Arc;

use blob_store::{Partial, SegmentMap};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant},
};

use super::fill::Fill;

/// The maximum time between the arrival of a byte and the start of a save.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes after which earlier failures no longer count. A source that sends less in each response fails after a few.
pub(super) const MIN_PROGRESS: u64 = 64 * 1024;

/// Interval between two checks whether a save has ended.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// When the segment map was saved last.
pub(crate) struct Checkpoint {
    partial: Partial,
    /// Bytes between two saves.
    interval_bytes: u64,
    saved_bytes: u64,
    saved_at: Instant,
    /// Bytes that were present when progress was last observed.
    seen_bytes: u64,
    save: Option<JoinHandle<()>>,
}

impl Checkpoint {
    pub(crate) fn new(partial: Partial, interval_bytes: u64) -> Self {
        Self { partial, interval_bytes, saved_bytes: 0, saved_at: Instant::now(), seen_bytes: 0, save: None }
    }

    /// Starts a save if one is due and none is running. Readers and downloads do not wait for it.
    pub(crate) fn save_if_due(&mut self, fill: &Arc<Fill>, present: u64) {
        let unsaved = present.saturating_sub(self.saved_bytes);
        let is_due =
            unsaved >= self.interval_bytes || (unsaved > 0 && self.saved_at.elapsed() >= SAVE_INTERVAL);
        if is_due && !self.is_busy() {
            self.saved_bytes = present;
            self.saved_at = Instant::now();
            self.save = Some(self.start(fill));
        }
    }

    /// When unsaved bytes are to be saved even if no further ones arrive.
    pub(crate) fn due_at(&self, present: u64) -> Option<Instant> {
        let at = if self.is_busy() { Instant::now() + BUSY_INTERVAL } else { self.saved_at + SAVE_INTERVAL };
        (present > self.saved_bytes).then_some(at)
    }

    fn is_busy(&self) -> bool {
        self.save.as_ref().is_some_and(|save| !save.is_finished())
    }

    /// Whether enough bytes arrived since the last call that returned true to count as progress.
    pub(crate) fn has_advanced(&mut self, present: u64) -> bool {
        let has_advanced = present.saturating_sub(self.seen_bytes) >= MIN_PROGRESS;
        if has_advanced {
            self.seen_bytes = present;
        }
        has_advanced
    }

    /// Saves the present state and waits for it.
    pub(crate) async fn save(&mut self, fill: &Arc<Fill>) {
        self.wait(fill).await;
        self.save = Some(self.start(fill));
        self.wait(fill).await;
    }

    /// Starts from zero: the bytes were discarded.
    pub(crate) fn reset(&mut self) {
        (self.saved_bytes, self.seen_bytes) = (0, 0);
        self.saved_at = Instant::now();
    }

    async fn wait(&mut self, fill: &Fill) {
        if let Some(save) = self.save.take()
            && save.await.is_err()
        {
            tracing::error!(digest = %fill.digest(), "panic while saving a segment map");
        }
    }

    fn start(&self, fill: &Fill) -> JoinHandle<()> {
        let (present, digest) = (fill.present(), fill.digest().clone());
        self.partial.spawn_blocking(move |file| {
            let map = SegmentMap { segments: present, ..SegmentMap::default() };
            if let Err(error) = file.save_segment_map(map) {
                tracing::warn!(%digest, %error, "failed to save segment map");
            }
        })
    }
}
