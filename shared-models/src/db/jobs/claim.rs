//! Claiming the next job.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryableByName, sql_query,
    sql_types::{BigInt, Integer, Text},
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use crate::db::{Conn, Db, DbError, on};
use oci_types::Millis;

/// A job that a worker has claimed.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct ClaimedJob {
    /// The id of the job.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Identifies the work among those of the kind.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// The parameters of the work, as JSON.
    #[diesel(sql_type = Text)]
    pub payload: String,
    /// The number of this attempt, from 1.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
}

/// Claims the job of a kind that has been due longest, for `lease` from `now`: a queued job, or a
/// running job whose lease has ended. Concurrent calls never claim the same job.
///
/// # Errors
/// [`DbError`].
pub async fn claim(
    db: &Db,
    kind: &str,
    worker: &str,
    lease: Duration,
    now: Millis,
) -> Result<Option<ClaimedJob>, DbError> {
    let (kind, worker) = (kind.to_owned(), worker.to_owned());
    db.write(move |conn| {
        async move {
            let query = sql_query(match conn {
                Conn::Postgres(_) => POSTGRES,
                Conn::Sqlite(_) => SQLITE,
            })
            .bind::<Text, _>(worker)
            .bind::<BigInt, _>(now.after(lease))
            .bind::<BigInt, _>(now)
            .bind::<Text, _>(kind);
            Ok(on!(conn, |c| query.get_result::<ClaimedJob>(c)).optional()?)
        }
        .boxed()
    })
    .await
}

/// Skips rows that other workers are claiming. Each half reads one end of an index, regardless of
/// the number of queued jobs.
const POSTGRES: &str = r#"
    UPDATE jobs
    SET state = 1, attempts = attempts + 1, worker = $1, lease_until = $2
    WHERE id = (
        SELECT id FROM (
            SELECT * FROM (SELECT id, run_at FROM jobs WHERE kind = $4 AND state = 0 AND run_at <= $3
                           ORDER BY run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) AS queued
            UNION ALL
            SELECT * FROM (SELECT id, run_at FROM jobs WHERE kind = $4 AND state = 1 AND lease_until <= $3
                           ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED) AS expired
        ) AS due
        ORDER BY run_at, id
        LIMIT 1
    )
    RETURNING id, "key", payload, attempts AS attempt
"#;

/// SQLite has one writer at a time: the statement is exclusive.
const SQLITE: &str = r#"
    UPDATE jobs
    SET state = 1, attempts = attempts + 1, worker = ?1, lease_until = ?2
    WHERE id = (
        SELECT id FROM (
            SELECT * FROM (SELECT id, run_at FROM jobs WHERE kind = ?4 AND state = 0 AND run_at <= ?3
                           ORDER BY run_at, id LIMIT 1)
            UNION ALL
            SELECT * FROM (SELECT id, run_at FROM jobs WHERE kind = ?4 AND state = 1 AND lease_until <= ?3
                           ORDER BY lease_until LIMIT 1)
        )
        ORDER BY run_at, id
        LIMIT 1
    )
    RETURNING id, "key", payload, attempts AS attempt
"#;
