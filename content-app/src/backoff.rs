//! Delays between retries.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// An endless sequence of delays that double, with jitter.
#[derive(Debug)]
pub(crate) struct Delays {
    backoff: ExponentialBackoff,
    max: Duration,
}

impl Delays {
    /// Delays of at least `min` at first, and never more than `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .without_max_times()
            .with_jitter()
            .build();
        Self { backoff, max }
    }

    /// The next delay.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.backoff.next().unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_their_maximum() {
        let second = Duration::from_secs(1);
        let mut delays = Delays::new(second, second * 5);
        for (at_least, at_most) in [(1, 2), (2, 4), (4, 5), (5, 5), (5, 5)] {
            let delay = delays.next_delay();
            assert!(second * at_least <= delay && delay <= second * at_most, "{delay:?}");
        }
    }
}
