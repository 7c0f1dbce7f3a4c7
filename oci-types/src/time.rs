//! Wall-clock times.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The clock of this process.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::new(Millis::system(), Instant::now()));

/// How far a time of another process may be ahead of [`Millis::now`] although no clock is wrong.
pub const MAX_CLOCK_ERROR: Duration = Duration::from_secs(10);

/// Milliseconds since the Unix epoch: the form of every time in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::BigInt))]
pub struct Millis(pub i64);

impl Millis {
    /// The current time: that of the last [`set_clock`], or else of the system clock when it was first needed, and the
    /// time that has elapsed since by the monotonic clock. A step of the system clock does not change it.
    pub fn now() -> Self {
        Self::at(Instant::now())
    }

    /// The time at a moment of the monotonic clock, as [`Millis::now`] would have returned it.
    pub fn at(moment: Instant) -> Self {
        CLOCK.at(moment)
    }

    /// The current time by the system clock.
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Whether a recorded time is later than any process could have observed: a clock was ahead when it was recorded.
    pub fn is_ahead_of(self, now: Self) -> bool {
        self > now.after(MAX_CLOCK_ERROR)
    }

    /// The time from this moment to `now`; zero if this moment is later.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// The moment `delay` later.
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `delay` earlier.
    pub fn before(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Sets the clock of this process, by which [`Millis::now`] is the current time, to a reading of the
/// reference clock at a moment of the monotonic clock. Processes that share a database use its
/// clock, so that they agree on times although their system clocks differ.
pub fn set_clock(reading: Millis, moment: Instant) {
    CLOCK.set(reading, moment);
}

/// A wall clock that is advanced by the monotonic clock.
#[derive(Debug)]
struct Clock {
    /// A moment of the monotonic clock.
    origin: Instant,
    /// The time at `origin`.
    at_origin: AtomicI64,
}

impl Clock {
    fn new(reading: Millis, moment: Instant) -> Self {
        Self { origin: moment, at_origin: AtomicI64::new(reading.0) }
    }

    fn at(&self, moment: Instant) -> Millis {
        Millis(self.at_origin.load(Ordering::Relaxed))
            .after(moment.saturating_duration_since(self.origin))
            .before(self.origin.saturating_duration_since(moment))
    }

    fn set(&self, reading: Millis, moment: Instant) {
        let at_origin = reading
            .before(moment.saturating_duration_since(self.origin))
            .after(self.origin.saturating_duration_since(moment));
        self.at_origin.store(at_origin.0, Ordering::Relaxed);
    }
}

#[cfg(feature = "diesel")]
impl<DB> diesel::serialize::ToSql<diesel::sql_types::BigInt, DB> for Millis
where
    DB: diesel::backend::Backend,
    i64: diesel::serialize::ToSql<diesel::sql_types::BigInt, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, DB>) -> diesel::serialize::Result {
        self.0.to_sql(out)
    }
}

#[cfg(feature = "diesel")]
impl<DB> diesel::deserialize::FromSql<diesel::sql_types::BigInt, DB> for Millis
where
    DB: diesel::backend::Backend,
    i64: diesel::deserialize::FromSql<diesel::sql_types::BigInt, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        i64::from_sql(bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TEN_MINUTES: Duration = Duration::from_mins(10);

    #[test]
    fn the_clock_advances_with_the_monotonic_clock_and_is_set_to_a_reading() {
        let (start, moment) = (Millis(1_000_000_000), Instant::now());
        let clock = Clock::new(start, moment);
        // Whatever the system clock shows meanwhile.
        assert_eq!(clock.at(moment + SECOND), start.after(SECOND));
        assert_eq!(clock.at(moment - SECOND), start.before(SECOND));
        for reading in [start.after(TEN_MINUTES), start.before(TEN_MINUTES), start] {
            for read_at in [moment - SECOND, moment, moment + SECOND] {
                clock.set(reading, read_at);
                assert_eq!(clock.at(read_at), reading);
                assert_eq!(clock.at(read_at + TEN_MINUTES), reading.after(TEN_MINUTES));
            }
        }
    }
}
