//! Background work: a queue with leases.
//!
//! A task that is queued or running is live, and there is one live task for a kind and key. A running task is its
//! worker's until the lease ends; then anybody may claim it.

mod claim;

use diesel::{ExpressionMethods, QueryDsl, dsl::count_star};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, on};
use crate::schema::tasks;
use oci_types::Millis;

pub use claim::{Task, claim};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// It waits for its time and a worker.
    Queued,
    /// A worker has it.
    Running,
    /// It was given up and is kept to be looked at.
    Failed,
}

/// A task as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// The row.
    pub id: i64,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub key: String,
    /// Where it stands.
    pub state: TaskState,
    /// How often it was begun.
    pub attempts: i32,
    /// When it may run.
    pub run_at: Millis,
    /// Until when its worker is believed.
    pub lease_until: Option<Millis>,
    /// Why it failed last.
    pub error: Option<String>,
}

const QUEUED: i16 = 0;
const RUNNING: i16 = 1;
const FAILED: i16 = 2;

/// Queues a task, to run from `run_at` on; false when one of that kind and key is live already. `payload` is JSON.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn enqueue(db: &Db, kind: &str, key: &str, payload: &str, run_at: Millis) -> Result<bool, DbError> {
    let (kind, key, payload) = (kind.to_owned(), key.to_owned(), payload.to_owned());
    db.write(move |conn| {
        async move {
            let query = diesel::insert_into(tasks::table)
                .values((
                    tasks::kind.eq(kind),
                    tasks::key.eq(key),
                    tasks::payload.eq(payload),
                    tasks::state.eq(QUEUED),
                    tasks::attempts.eq(0),
                    tasks::run_at.eq(run_at.0),
                    tasks::created_at.eq(Millis::now().0),
                ))
                .on_conflict_do_nothing();
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// The row while `worker` has it.
macro_rules! held {
    ($id:expr, $worker:expr) => {
        tasks::table
            .filter(tasks::id.eq($id))
            .filter(tasks::state.eq(RUNNING))
            .filter(tasks::worker.eq($worker))
    };
}

/// Keeps the lease until `until`; false when the task is no longer the worker's.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn renew(db: &Db, id: i64, worker: &str, until: Millis) -> Result<bool, DbError> {
    let worker = worker.to_owned();
    db.write(move |conn| {
        async move {
            let query = diesel::update(held!(id, worker)).set(tasks::lease_until.eq(until.0));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Takes a task away that is done; false when it was no longer the worker's.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn finish(db: &Db, id: i64, worker: &str) -> Result<bool, DbError> {
    let worker = worker.to_owned();
    db.write(move |conn| {
        async move {
            let query = diesel::delete(held!(id, worker));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Puts a task back to be tried again from `run_at` on; false when it was no longer the worker's.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn retry(db: &Db, id: i64, worker: &str, run_at: Millis, error: &str) -> Result<bool, DbError> {
    let (worker, error) = (worker.to_owned(), error.to_owned());
    db.write(move |conn| {
        async move {
            let query = diesel::update(held!(id, worker)).set((
                tasks::state.eq(QUEUED),
                tasks::run_at.eq(run_at.0),
                tasks::worker.eq(None::<String>),
                tasks::lease_until.eq(None::<i64>),
                tasks::error.eq(error),
            ));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Gives a task up. It is kept as failed, in the place of an earlier failure of the same kind and key, and doesn't stand
/// in the way of a new one. False when it was no longer the worker's.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn fail(db: &Db, id: i64, worker: &str, error: &str) -> Result<bool, DbError> {
    let (worker, error) = (worker.to_owned(), error.to_owned());
    db.transaction(move |conn| {
        async move {
            let query = diesel::update(held!(id, worker))
                .set((
                    tasks::state.eq(FAILED),
                    tasks::worker.eq(None::<String>),
                    tasks::lease_until.eq(None::<i64>),
                    tasks::error.eq(error),
                ))
                .returning((tasks::kind, tasks::key));
            let failed: Vec<(String, String)> = on!(conn, |c| query.get_results(c))?;
            let Some((kind, key)) = failed.into_iter().next() else { return Ok(false) };
            let earlier = tasks::table
                .filter(tasks::kind.eq(kind))
                .filter(tasks::key.eq(key))
                .filter(tasks::state.eq(FAILED))
                .filter(tasks::id.ne(id));
            let query = diesel::delete(earlier);
            on!(conn, |c| query.execute(c))?;
            Ok(true)
        }
        .boxed()
    })
    .await
}

/// Puts back everything that the worker has, for it is about to end.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn release_all(db: &Db, worker: &str) -> Result<(), DbError> {
    let worker = worker.to_owned();
    db.write(move |conn| {
        async move {
            let query = diesel::update(
                tasks::table.filter(tasks::state.eq(RUNNING)).filter(tasks::worker.eq(worker)),
            )
            .set((
                tasks::state.eq(QUEUED),
                tasks::worker.eq(None::<String>),
                tasks::lease_until.eq(None::<i64>),
            ));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// How many tasks there are, by kind and state.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn counts(db: &Db) -> Result<Vec<(String, TaskState, i64)>, DbError> {
    db.read(|conn| {
        async move {
            let query = tasks::table
                .group_by((tasks::kind, tasks::state))
                .order((tasks::kind, tasks::state))
                .select((tasks::kind, tasks::state, count_star()));
            let rows: Vec<(String, i16, i64)> = on!(conn, |c| query.load(c))?;
            rows.into_iter()
                .map(|(kind, state, count)| Ok((kind, TaskState::from_number(state)?, count)))
                .collect()
        }
        .boxed()
    })
    .await
}

/// The last `limit` tasks that were queued, the latest first.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn list(db: &Db, limit: i64) -> Result<Vec<TaskRow>, DbError> {
    db.read(move |conn| async move { rows(conn, limit).await }.boxed()).await
}

async fn rows(conn: &mut Conn, limit: i64) -> Result<Vec<TaskRow>, DbError> {
    type Row = (i64, String, String, i16, i32, i64, Option<i64>, Option<String>);
    let query = tasks::table.order(tasks::id.desc()).limit(limit).select((
        tasks::id,
        tasks::kind,
        tasks::key,
        tasks::state,
        tasks::attempts,
        tasks::run_at,
        tasks::lease_until,
        tasks::error,
    ));
    let rows: Vec<Row> = on!(conn, |c| query.load(c))?;
    let row = |(id, kind, key, state, attempts, run_at, lease_until, error): Row| {
        Ok(TaskRow {
            id,
            kind,
            key,
            state: TaskState::from_number(state)?,
            attempts,
            run_at: Millis(run_at),
            lease_until: lease_until.map(Millis),
            error,
        })
    };
    rows.into_iter().map(row).collect()
}

impl TaskState {
    fn from_number(number: i16) -> Result<Self, DbError> {
        match number {
            QUEUED => Ok(Self::Queued),
            RUNNING => Ok(Self::Running),
            FAILED => Ok(Self::Failed),
            other => Err(DbError::Broken(format!("{other} is no state of a task"))),
        }
    }
}
