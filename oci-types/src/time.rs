//! Wall-clock times.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The offset of the reference clock from the wall clock of this process, in milliseconds.
static OFFSET: AtomicI64 = AtomicI64::new(0);

/// How far a time of another process may be ahead of [`Millis::now`] although no clock is wrong.
pub const MAX_CLOCK_ERROR: Duration = Duration::from_secs(10);

/// Milliseconds since the Unix epoch: the form of every time in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::BigInt))]
pub struct Millis(pub i64);

impl Millis {
    /// The current time by the reference clock: the wall clock of this process, corrected by [`set_clock_offset`].
    pub fn now() -> Self {
        Self(Self::wall().0.saturating_add(OFFSET.load(Ordering::Relaxed)))
    }

    /// The current time by the wall clock of this process.
    pub fn wall() -> Self {
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

/// Sets the offset of the reference clock from the wall clock of this process, in milliseconds.
/// Processes that share a database use its clock, so that they agree on times although their own
/// clocks differ.
pub fn set_clock_offset(millis: i64) {
    OFFSET.store(millis, Ordering::Relaxed);
}

/// The offset of the reference clock from the wall clock of this process, in milliseconds.
pub fn clock_offset() -> i64 {
    OFFSET.load(Ordering::Relaxed)
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
