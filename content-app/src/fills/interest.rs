//! Who reads a fill, counted: it goes on as long as somebody does.

use std::sync::{Arc, atomic::Ordering};

use super::{fill::Fill, read_mode::Part};

/// One reader's interest in a fill. It ends when this is dropped.
pub(crate) struct Interest {
    fill: Arc<Fill>,
    part: Part,
}

impl Interest {
    /// Counts a reader of this `part` in.
    pub(super) fn in_part(fill: &Arc<Fill>, part: Part) -> Self {
        fill.readers.fetch_add(1, Ordering::Relaxed);
        if part.runs_to_the_end() {
            fill.whole_readers.fetch_add(1, Ordering::Relaxed);
        }
        fill.tick();
        Self { fill: Arc::clone(fill), part }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.fill.readers.fetch_sub(1, Ordering::Relaxed);
        if self.part.runs_to_the_end() {
            self.fill.whole_readers.fetch_sub(1, Ordering::Relaxed);
        }
        self.fill.tick();
    }
}
