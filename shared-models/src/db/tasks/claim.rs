//! Taking the next task.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryableByName, sql_query,
    sql_types::{BigInt, Integer, Text},
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use crate::db::{Conn, Db, DbError, on};
use oci_types::Millis;

/// A task that a worker has claimed.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Task {
    /// The row.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// What is to be done.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// To what.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// The rest of what the worker needs, as JSON.
    #[diesel(sql_type = Text)]
    pub payload: String,
    /// How often it was begun, this time included.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
}

/// Claims the task that is due longest, for `lease` from `now`: a queued one, or a running one whose lease has ended.
/// No two workers get the same.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn claim(db: &Db, worker: &str, lease: Duration, now: Millis) -> Result<Option<Task>, DbError> {
    let worker = worker.to_owned();
    db.write(move |conn| {
        async move {
            let query = sql_query(match conn {
                Conn::Postgres(_) => POSTGRES,
                Conn::Sqlite(_) => SQLITE,
            })
            .bind::<Text, _>(worker)
            .bind::<BigInt, _>(now.after(lease).0)
            .bind::<BigInt, _>(now.0);
            Ok(on!(conn, |c| query.get_result::<Task>(c)).optional()?)
        }
        .boxed()
    })
    .await
}

/// Workers step over what another is just claiming, so they don't wait for each other. Either half reads one end of an
/// index, however many tasks wait.
const POSTGRES: &str = r#"
    UPDATE tasks
    SET state = 1, attempts = attempts + 1, worker = $1, lease_until = $2
    WHERE id = (
        SELECT id FROM (
            SELECT * FROM (SELECT id, run_at FROM tasks WHERE state = 0 AND run_at <= $3
                           ORDER BY run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) AS queued
            UNION ALL
            SELECT * FROM (SELECT id, run_at FROM tasks WHERE state = 1 AND lease_until <= $3
                           ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED) AS left_behind
        ) AS due
        ORDER BY run_at, id
        LIMIT 1
    )
    RETURNING id, kind, "key", payload, attempts
"#;

/// There is one writer at a time, so the statement as a whole is exclusive.
const SQLITE: &str = r#"
    UPDATE tasks
    SET state = 1, attempts = attempts + 1, worker = ?1, lease_until = ?2
    WHERE id = (
        SELECT id FROM (
            SELECT * FROM (SELECT id, run_at FROM tasks WHERE state = 0 AND run_at <= ?3
                           ORDER BY run_at, id LIMIT 1)
            UNION ALL
            SELECT * FROM (SELECT id, run_at FROM tasks WHERE state = 1 AND lease_until <= ?3
                           ORDER BY lease_until LIMIT 1)
        )
        ORDER BY run_at, id
        LIMIT 1
    )
    RETURNING id, kind, "key", payload, attempts
"#;
