//! Saves the map of a partial file now and then, so that a crash costs little.

use std::sync::Arc;

use blob_store::{Partial, Segments};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant},
};

use super::fill::Fill;

/// At least this often while bytes land.
const INTERVAL: Duration = Duration::from_secs(1);

/// While a save runs, how soon the next one is thought of.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// When the map was saved last.
pub(crate) struct Checkpoint {
    partial: Partial,
    /// Save when this many bytes have landed since.
    every: u64,
    saved_bytes: u64,
    saved_at: Instant,
    /// How many bytes had landed when a download ended last.
    seen_bytes: u64,
    saving: Option<JoinHandle<()>>,
}

impl Checkpoint {
    pub(crate) fn new(partial: Partial, every: u64) -> Self {
        Self { partial, every, saved_bytes: 0, saved_at: Instant::now(), seen_bytes: 0, saving: None }
    }

    /// Starts to save when it is time to and the last save is done. Readers and downloads do not wait for it.
    pub(crate) fn keep_up(&mut self, fill: &Arc<Fill>, landed: u64) {
        let fresh = landed.saturating_sub(self.saved_bytes);
        let due = fresh >= self.every || (fresh > 0 && self.saved_at.elapsed() >= INTERVAL);
        if due && !self.is_busy() {
            self.saved_bytes = landed;
            self.saved_at = Instant::now();
            self.saving = Some(self.start(fill.present(), fill));
        }
    }

    /// When bytes that have landed are to be saved even if no more come.
    pub(crate) fn due(&self, landed: u64) -> Option<Instant> {
        let at = if self.is_busy() { Instant::now() + LOOK_AGAIN } else { self.saved_at + INTERVAL };
        (landed > self.saved_bytes).then_some(at)
    }

    fn is_busy(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| !saving.is_finished())
    }

    /// Whether more has landed than when this was asked last.
    pub(crate) fn has_advanced(&mut self, landed: u64) -> bool {
        let advanced = landed > self.seen_bytes;
        self.seen_bytes = landed;
        advanced
    }

    /// Saves what is there now and waits for it.
    pub(crate) async fn save(&mut self, fill: &Arc<Fill>) {
        self.settle().await;
        self.saving = Some(self.start(fill.present(), fill));
        self.settle().await;
    }

    /// What was saved no longer counts.
    pub(crate) fn forget(&mut self) {
        (self.saved_bytes, self.seen_bytes) = (0, 0);
        self.saved_at = Instant::now();
    }

    async fn settle(&mut self) {
        if let Some(saving) = self.saving.take()
            && saving.await.is_err()
        {
            tracing::error!("saving the map of a partial file panicked");
        }
    }

    fn start(&self, present: Segments, fill: &Arc<Fill>) -> JoinHandle<()> {
        let (partial, digest, origin) = (self.partial.clone(), fill.digest().clone(), fill.origin());
        tokio::task::spawn_blocking(move || {
            let validator = origin.as_ref().map(|origin| origin.validator.as_str());
            let source = origin.as_ref().map(|origin| origin.name.as_str());
            if let Err(error) = partial.save_map(&present, validator, source) {
                tracing::warn!(%digest, "the map of a partial download could not be saved: {error}");
            }
        })
    }
}
