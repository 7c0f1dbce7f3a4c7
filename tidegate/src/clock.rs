//! Sets the clock of this process to that of the database, which all processes use.

use std::{sync::atomic::AtomicU64, time::Duration};

use oci_types::{Millis, time::set_clock};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use shared_models::db::{Db, clock};
use tokio::time::{MissedTickBehavior, interval};

/// The interval of comparisons.
const INTERVAL: Duration = Duration::from_secs(10);

/// An offset beyond this is logged when it begins, in milliseconds.
const WARN_OFFSET: i64 = 1000;

/// A reading is not used when its error may be larger.
const MAX_ERROR: Duration = Duration::from_secs(1);

/// The last offset, as a metric.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClockOffset(Gauge<f64, AtomicU64>);

impl ClockOffset {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let offset = Self::default();
        let help = "Offset of the clock of the database to that of this process";
        registry.register("tidegate_clock_offset_seconds", help, offset.0.clone());
        offset
    }

    /// Reads the clock of the database once, and sets that of this process to it where they differ.
    /// A database that is unavailable leaves it as it is.
    pub(crate) async fn measure(&self, db: &Db, was_wrong: bool) -> bool {
        let Ok(reading) = clock::read(db).await else { return was_wrong };
        if reading.error > MAX_ERROR {
            return was_wrong;
        }
        if difference(reading.time, Millis::at(reading.moment), reading.error) != 0 {
            set_clock(reading.time, reading.moment);
        }
        let offset = difference(reading.time, reading.system, reading.error);
        self.0.set(f64::from(i32::try_from(offset).unwrap_or(i32::MAX)) / 1000.0);
        let is_wrong = offset.saturating_abs() > WARN_OFFSET;
        if is_wrong && !was_wrong {
            tracing::warn!(offset_ms = offset, "the clock of this process differs from that of the database");
        }
        is_wrong
    }

    /// Compares the clocks forever.
    pub(crate) async fn run(&self, db: &Db) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_wrong = false;
        loop {
            ticks.tick().await;
            is_wrong = self.measure(db, is_wrong).await;
        }
    }
}

/// What a clock is ahead of another one, in milliseconds: 0 within the error of their readings, as
/// they may be equal.
fn difference(time: Millis, other: Millis, error: Duration) -> i64 {
    let difference = time.0.saturating_sub(other.0);
    if Duration::from_millis(difference.unsigned_abs()) <= error { 0 } else { difference }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_when_their_readings_do_by_more_than_the_error() {
        let error = Duration::from_millis(5);
        for (time, expected) in [(94, -6), (95, 0), (100, 0), (105, 0), (106, 6)] {
            assert_eq!(difference(Millis(time), Millis(100), error), expected, "{time}");
        }
    }
}
