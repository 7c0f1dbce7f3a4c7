//! The clock of the database, to which processes compare their own.

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::RunQueryDsl;
use futures::FutureExt;
use oci_types::Millis;
use tokio::time::Instant;

use super::{Conn, Db, DbError};

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = BigInt)]
    now: i64,
}

/// The offset of the database's clock to the wall clock of this process, in milliseconds, and how far it may be wrong: half
/// of the time that the query took. 0 for SQLite, which has the clock of this process.
///
/// # Errors
/// [`DbError`].
pub async fn offset(db: &Db) -> Result<(i64, i64), DbError> {
    db.read(|conn| {
        async move {
            let Conn::Postgres(conn) = conn else { return Ok((0, 0)) };
            let query = sql_query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now");
            let (began, wall) = (Instant::now(), Millis::wall());
            let Now { now } = query.get_result(&mut **conn).await?;
            let half = i64::try_from(began.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
            Ok((now.saturating_sub(wall.0).saturating_sub(half), half))
        }
        .boxed()
    })
    .await
}
