//! Compares the clock of this process to that of the database, which all processes use.

use std::{sync::atomic::AtomicU64, time::Duration};

use oci_types::time::set_clock_offset;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use shared_models::db::{Db, clock};
use tokio::time::{MissedTickBehavior, interval};

/// The interval of comparisons.
const INTERVAL: Duration = Duration::from_secs(10);

/// An offset beyond this is logged when it begins, in milliseconds.
const WARN_OFFSET: i64 = 1000;

/// An offset is not believed when its error may be larger, in milliseconds.
const MAX_ERROR: i64 = 1000;

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

    /// Compares the clocks once. A database that is unavailable leaves the offset as it is.
    pub(crate) async fn measure(&self, db: &Db, was_wrong: bool) -> bool {
        let Ok((offset, error)) = clock::offset(db).await else { return was_wrong };
        if error > MAX_ERROR {
            return was_wrong;
        }
        // Within the error of the measurement, the clocks may be equal.
        let offset = if offset.abs() <= error { 0 } else { offset };
        set_clock_offset(offset);
        self.0.set(f64::from(i32::try_from(offset).unwrap_or(i32::MAX)) / 1000.0);
        let is_wrong = offset.abs() > WARN_OFFSET;
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
