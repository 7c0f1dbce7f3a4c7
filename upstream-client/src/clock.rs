//! The current time.

use std::time::{Duration, Instant};

use oci_types::Millis;

/// The current monotonic time. It is tokio's, which a test can pause and advance.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The current time on both clocks, to convert between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: Millis,
}

impl Now {
    /// Reads both clocks. The wall clock is advanced with tokio's in a test, and is otherwise the system's.
    pub(crate) fn read() -> Self {
        let (monotonic, system) = (now(), Instant::now());
        let wall = Millis::now()
            .after(monotonic.saturating_duration_since(system))
            .before(system.saturating_duration_since(monotonic));
        Self { monotonic, wall }
    }

    /// The wall-clock time of a moment in the past.
    pub(crate) fn wall_of(&self, past: Instant) -> Millis {
        self.wall.before(self.monotonic.saturating_duration_since(past))
    }

    /// The moment of a wall-clock time in the past.
    pub(crate) fn monotonic_of(&self, past: Millis) -> Instant {
        self.monotonic.checked_sub(past.age(self.wall)).unwrap_or(self.monotonic)
    }

    /// Time until a wall-clock time in the future; zero for one in the past.
    pub(crate) fn until(&self, future: Millis) -> Duration {
        self.wall.age(future)
    }
}
