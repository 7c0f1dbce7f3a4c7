//! The clock of the database, with which processes compare their own.

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

/// The offset of the database's clock from the wall clock of this process, and the maximum error of
/// the offset (half the duration of the query), both in milliseconds. 0 for SQLite, which uses the
/// clock of this process.
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
