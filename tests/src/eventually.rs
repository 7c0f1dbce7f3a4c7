//! Waiting for a condition.

use std::time::{Duration, Instant};

/// The default time limit of a condition. It is reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The remaining time of a condition.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// A time limit from now on.
    pub fn of(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, pause: Duration::from_millis(1) }
    }

    /// Pauses before the next evaluation, a little longer each time; false at the time limit.
    pub async fn lasts(&mut self) -> bool {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        Instant::now() < self.until
    }
}

/// Asserts that a condition (which may `.await`) becomes true: `assert_eventually!(a == b)`,
/// `assert_eventually!(a == b, "with {a}")`, `assert_eventually!(within Duration::from_secs(60), a == b)`.
#[macro_export]
macro_rules! assert_eventually {
    (within $timeout:expr, $condition:expr $(,)?) => {
        $crate::assert_eventually!(within $timeout, $condition, "{}", stringify!($condition))
    };
    (within $timeout:expr, $condition:expr, $($message:tt)+) => {{
        let timeout: ::std::time::Duration = $timeout;
        let mut patience = $crate::eventually::Patience::of(timeout);
        while !$condition {
            assert!(patience.lasts().await, "not true within {timeout:?}: {}", format_args!($($message)+));
        }
    }};
    ($condition:expr $(,)?) => {
        $crate::assert_eventually!(within $crate::eventually::PATIENCE, $condition)
    };
    ($condition:expr, $($message:tt)+) => {
        $crate::assert_eventually!(within $crate::eventually::PATIENCE, $condition, $($message)+)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_is_looked_at_until_it_is_true() {
        let started = Instant::now();
        assert_eventually!(started.elapsed() > Duration::from_millis(20));
        assert_eventually!(within Duration::from_secs(1), std::future::ready(true).await, "it is {}", "ready");
    }

    #[tokio::test]
    #[should_panic(expected = "not true within 10ms: never")]
    async fn patience_ends() {
        assert_eventually!(within Duration::from_millis(10), false, "never");
    }
}
