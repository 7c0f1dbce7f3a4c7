//! The clock of the database, which all processes use.

use std::time::{Duration, Instant};

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::RunQueryDsl;
use futures::FutureExt;
use oci_types::Millis;

use super::{Conn, Db, DbError};

/// The precision of times.
const PRECISION: Duration = Duration::from_millis(1);

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = BigInt)]
    now: i64,
}

/// A reading of the clock of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time that it showed.
    pub time: Millis,
    /// The maximum error of `time`: half the duration of the query.
    pub error: Duration,
    /// When it was read, by the monotonic clock of this process.
    pub moment: Instant,
    /// The time of the system clock at that moment.
    pub system: Millis,
}

/// Reads the clock of the database. For SQLite, that is the system clock.
///
/// # Errors
/// [`DbError`].
pub async fn read(db: &Db) -> Result<Reading, DbError> {
    db.read(|conn| {
        async move {
            let (moment, system) = (Instant::now(), Millis::system());
            let Conn::Postgres(conn) = conn else {
                return Ok(Reading { time: system, error: PRECISION, moment, system });
            };
            let query = sql_query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now");
            let Now { now } = query.get_result(&mut **conn).await?;
            let half = moment.elapsed() / 2;
            Ok(Reading {
                time: Millis(now),
                error: half + PRECISION,
                moment: moment + half,
                system: system.after(half),
            })
        }
        .boxed()
    })
    .await
}
